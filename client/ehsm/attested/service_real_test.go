package attested_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/client/ehsm/attested"
	"github.com/ehsm-kms/ehsm/client/ehsmtest"
)

// TestRealService verifies the real service, core and all, on the simulated
// platform: first whatever it is, then exactly that.
func TestRealService(t *testing.T) {
	kms := ehsmtest.New(t)
	stranger, err := ehsm.New(ehsm.Config{URL: kms.URL, Fingerprint: kms.Fingerprint})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	first := attested.Verifier{InsecureSkipPolicy: true, AnyDomain: true, AllowSim: true}
	r, err := first.Verify(t.Context(), stranger)
	if err != nil || !r.Simulated || r.Wanted {
		t.Fatalf("got %+v, %v", r, err)
	}
	pinned := func(measurement string) *attested.Policy {
		p, err := attested.ParsePolicy(fmt.Appendf(nil, `{"format":"ehsm-sgx-policy/v1","allow_sim":true,
			"enclaves":[{"name":"core","mrenclave":%q}],"platforms":[{"name":"here","ppid":%q}]}`, measurement, r.PlatformID))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	v := attested.Verifier{Policy: pinned(r.Measurement), Domain: r.DomainID}
	if again, err := v.Verify(t.Context(), stranger); err != nil || again.Machine != "here" || again.Instance != r.Instance {
		t.Errorf("pinned: got %+v, %v", again, err)
	}
	for name, row := range map[string]struct {
		change func(*attested.Verifier)
		kind   error
	}{
		"simulation is not allowed": {func(v *attested.Verifier) { v.Policy, v.InsecureSkipPolicy = nil, true }, attested.ErrSimulated},
		"another program":           {func(v *attested.Verifier) { v.Policy = pinned(r.Signer) }, attested.ErrNotWanted},
		"another domain":            {func(v *attested.Verifier) { v.Domain[0] ^= 1 }, attested.ErrDomain},
	} {
		v := v
		row.change(&v)
		if _, err := v.Verify(t.Context(), stranger); !errors.Is(err, row.kind) {
			t.Errorf("%s: got %v, want %v", name, err, row.kind)
		}
	}
	verifyNative(t, kms.Client, &v, r)
}

// verifyNative asks the service for a quote of the older kind, which names no
// instance, and judges it by the same policy.
func verifyNative(t *testing.T, c *ehsm.Client, v *attested.Verifier, r *attested.Report) {
	challenge := []byte("a challenge of this test")
	answer, err := c.GenerateQuote(context.Background(), challenge)
	if err != nil {
		t.Fatal(err)
	}
	n := attested.Native{Challenge: challenge, Quote: answer.Quote, DomainID: r.DomainID, HPKEPublicKey: answer.HPKEPublicKey}
	if native, err := v.VerifyNative(t.Context(), c, n); err != nil || string(native.HPKEPublicKey) != string(r.HPKEPublicKey) {
		t.Errorf("native: got %+v, %v", native, err)
	}
	n.Challenge = []byte("another challenge")
	if _, err := v.VerifyNative(t.Context(), c, n); !errors.Is(err, attested.ErrChallenge) {
		t.Errorf("native, other challenge: got %v", err)
	}
}

// TestSealedService calls the real service sealed, by a verifier that pins what it
// is, and not at all by one that wants something else.
func TestSealedService(t *testing.T) {
	kms := ehsmtest.New(t)
	first := attested.Verifier{InsecureSkipPolicy: true, AnyDomain: true, AllowSim: true}
	r, err := first.Verify(t.Context(), kms.Client)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := attested.ParsePolicy(fmt.Appendf(nil, `{"format":"ehsm-sgx-policy/v1","allow_sim":true,
		"enclaves":[{"name":"core","mrenclave":%q}],"platforms":[{"name":"here","ppid":%q}]}`, r.Measurement, r.PlatformID))
	if err != nil {
		t.Fatal(err)
	}
	v := attested.Verifier{Policy: policy, Domain: r.DomainID}
	c := v.Sealed(kms.Client)
	key, err := c.CreateKey(t.Context(), api.AESGCM256, api.EncryptDecrypt, api.InternalKey)
	if err != nil {
		t.Fatal(err)
	}
	ciphertext, err := c.Encrypt(t.Context(), key, []byte("a plaintext"), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := kms.Client.Decrypt(t.Context(), key, ciphertext, []byte("aad")); err != nil || string(got) != "a plaintext" {
		t.Errorf("Decrypt in clear: got %q, %v", got, err)
	}
	if err := c.CreateSecret(t.Context(), "a name", ehsm.NewSecretValue("a value"), ehsm.SecretOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.GetSecretValue(t.Context(), "a name", 0); err != nil || got.Value.Expose() != "a value" {
		t.Errorf("GetSecretValue: got %v", err)
	}
	if _, err := c.Decrypt(t.Context(), key, ciphertext, nil); !ehsm.IsDecryptionFailed(err) || ehsm.IsUnauthenticated(err) {
		t.Errorf("other additional data: got %v", err)
	}
	if _, err := c.With(ehsm.Credentials{AppID: c.AppID(), APIKey: ehsm.NewAPIKey("wrong")}).Decrypt(t.Context(), key, ciphertext, nil); !ehsm.IsBadCredentials(err) || ehsm.IsUnauthenticated(err) {
		t.Errorf("wrong API key: got %v", err)
	}
	v.Domain[0] ^= 1
	if _, err := v.Sealed(kms.Client).Encrypt(t.Context(), key, []byte("x"), nil); !errors.Is(err, ehsm.ErrSealed) || !errors.Is(err, attested.ErrDomain) {
		t.Errorf("another domain: got %v", err)
	}
}
