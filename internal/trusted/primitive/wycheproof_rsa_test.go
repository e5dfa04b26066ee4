package primitive

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// digestOf maps Wycheproof's names of hash functions; others are not ours.
func digestOf(name string) Digest {
	return map[string]Digest{"SHA-224": SHA224, "SHA-256": SHA256, "SHA-384": SHA384, "SHA-512": SHA512}[name]
}

func rsaFromSPKI(t testing.TB, der []byte) rsaPublic {
	t.Helper()
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return rsaPublic{key.(*rsa.PublicKey)}
}

// rsaFromPKCS8 opens keys with exponents that OpenPrivate would refuse, too.
func rsaFromPKCS8(t testing.TB, der []byte) rsaPrivate {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	private := key.(*rsa.PrivateKey)
	return rsaPrivate{rsaPublic{&private.PublicKey}, private}
}

type rsaVerifyGroup struct {
	SHA, MGFSHA  string
	SLen         int
	PublicKeyDER hexBytes
	Tests        []struct {
		TCID     int
		Msg, Sig hexBytes
		Result   string
	}
}

// verdict folds the error for a signature of another length than the modulus
// into false; any other error is unexpected.
func verdict(t *testing.T, ok bool, err error) bool {
	t.Helper()
	if err != nil && !errors.Is(err, ErrParameter) {
		t.Errorf("verify: got %v, want ErrParameter or none", err)
	}
	return ok && err == nil
}

func TestWycheproofRSASignatures(t *testing.T) {
	for _, file := range []string{
		"rsa_signature_2048_sha224_test.json", "rsa_signature_2048_sha256_test.json",
		"rsa_signature_2048_sha384_test.json", "rsa_signature_2048_sha512_test.json",
		"rsa_signature_3072_sha256_test.json", "rsa_signature_3072_sha384_test.json",
		"rsa_signature_3072_sha512_test.json", "rsa_signature_4096_sha256_test.json",
		"rsa_signature_4096_sha384_test.json", "rsa_signature_4096_sha512_test.json",
	} {
		count := tally{}
		for _, g := range vectors[rsaVerifyGroup](t, file) {
			key := rsaFromSPKI(t, g.PublicKeyDER)
			for _, v := range g.Tests {
				count[v.Result]++
				ok, err := key.verify(v.Msg, v.Sig, MessageRaw, digestOf(g.SHA), PaddingPKCS1)
				// Acceptable are DigestInfos without NULL: a second encoding, refused.
				if got := verdict(t, ok, err); got != (v.Result == "valid") {
					t.Errorf("%s, %d: got %v, %v, want %s", file, v.TCID, ok, err, v.Result)
				}
			}
		}
		count.check(t, file)
	}
}

func TestWycheproofPSS(t *testing.T) {
	for _, file := range []string{
		"rsa_pss_2048_sha256_mgf1_32_test.json", "rsa_pss_2048_sha384_mgf1_48_test.json",
		"rsa_pss_3072_sha256_mgf1_32_test.json", "rsa_pss_4096_sha256_mgf1_32_test.json",
		"rsa_pss_4096_sha384_mgf1_48_test.json", "rsa_pss_4096_sha512_mgf1_64_test.json",
	} {
		count := tally{}
		for _, g := range vectors[rsaVerifyGroup](t, file) {
			key := rsaFromSPKI(t, g.PublicKeyDER)
			for _, v := range g.Tests {
				count[v.Result]++
				ok, err := key.verify(v.Msg, v.Sig, MessageRaw, digestOf(g.SHA), PaddingPSS)
				if got := verdict(t, ok, err); got != (v.Result == "valid") {
					t.Errorf("%s, %d: got %v, %v, want %s", file, v.TCID, ok, err, v.Result)
				}
			}
		}
		count.check(t, file)
	}
}

// Signatures that are valid under other parameters of PSS must not be under ours.
func TestWycheproofPSSOtherParameters(t *testing.T) {
	refused := 0
	for _, file := range []string{
		"rsa_pss_2048_sha256_mgf1_0_test.json", "rsa_pss_2048_sha256_mgf1sha1_20_test.json", "rsa_pss_misc_test.json",
	} {
		for _, g := range vectors[rsaVerifyGroup](t, file) {
			d := digestOf(g.SHA)
			if d == 0 || g.MGFSHA == g.SHA && g.SLen == d.Size() {
				continue
			}
			key := rsaFromSPKI(t, g.PublicKeyDER)
			for _, v := range g.Tests {
				if v.Result != "valid" { // some are invalid because they have our parameters
					continue
				}
				if ok, _ := key.verify(v.Msg, v.Sig, MessageRaw, d, PaddingPSS); ok {
					t.Errorf("%s, %d: a salt of %d bytes with MGF1-%s verifies", file, v.TCID, g.SLen, g.MGFSHA)
				}
				refused++
			}
		}
	}
	if t.Logf("%d signatures refused", refused); refused == 0 {
		t.Error("no signature with other parameters was tried")
	}
}

func TestWycheproofRSASign(t *testing.T) {
	type group struct {
		SHA             string
		PrivateKeyPKCS8 hexBytes
		Tests           []struct {
			TCID     int
			Msg, Sig hexBytes
			Result   string
		}
	}
	for _, file := range []string{"rsa_pkcs1_2048_sig_gen_test.json", "rsa_pkcs1_3072_sig_gen_test.json", "rsa_pkcs1_4096_sig_gen_test.json"} {
		if raceEnabled && !strings.Contains(file, "2048") {
			continue
		}
		count := tally{}
		for _, g := range vectors[group](t, file) {
			d := digestOf(g.SHA)
			if d == 0 {
				count["other hash"] += len(g.Tests)
				continue
			}
			key := rsaFromPKCS8(t, g.PrivateKeyPKCS8)
			for _, v := range g.Tests {
				count[v.Result]++
				got, err := key.sign(v.Msg, MessageRaw, d, PaddingPKCS1)
				if err != nil || !bytes.Equal(got, v.Sig) {
					t.Errorf("%s, %d: got %x, %v, want %x", file, v.TCID, got, err, v.Sig)
				}
			}
		}
		if t.Logf("%s: %v", file, map[string]int(count)); count["valid"] == 0 {
			t.Errorf("%s: no valid row", file)
		}
	}
}

type rsaDecryptGroup struct {
	PrivateKeyPKCS8 hexBytes
	Tests           []struct {
		TCID           int
		Msg, CT, Label hexBytes
		Result         string
		Flags          json.RawMessage
	}
}

func TestWycheproofRSADecrypt(t *testing.T) {
	files := map[string]Padding{
		"rsa_pkcs1_2048_test.json": PaddingPKCS1, "rsa_pkcs1_3072_test.json": PaddingPKCS1, "rsa_pkcs1_4096_test.json": PaddingPKCS1,
		"rsa_oaep_2048_sha256_mgf1sha256_test.json": PaddingOAEP,
		"rsa_oaep_3072_sha256_mgf1sha256_test.json": PaddingOAEP,
		"rsa_oaep_4096_sha256_mgf1sha256_test.json": PaddingOAEP,
	}
	for file, padding := range files {
		if raceEnabled && !strings.Contains(file, "2048") {
			continue
		}
		count := tally{}
		for _, g := range vectors[rsaDecryptGroup](t, file) {
			key := rsaFromPKCS8(t, g.PrivateKeyPKCS8)
			for _, v := range g.Tests {
				// We have no labels: a ciphertext with one must be refused.
				want := v.Result == "valid" && len(v.Label) == 0
				if count[v.Result]++; len(v.Label) > 0 {
					count["with a label"]++
				}
				got, err := key.decrypt(v.CT, padding)
				if (err == nil) != want || want && !bytes.Equal(got, v.Msg) || !want && err != ErrDecrypt {
					t.Errorf("%s, %d: got %x, %v, want %s", file, v.TCID, got, err, v.Result)
				}
			}
		}
		count.check(t, file)
	}
}
