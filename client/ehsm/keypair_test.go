package ehsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
)

const (
	pairID       = "0b1f2e3d-4c5b-4a69-8778-695a4b3c2d1e"
	pairInstance = "aac3e45a-d3dc-4791-89b6-4ada0e38e6ef"
)

func pairSigners(t *testing.T) map[string]crypto.Signer {
	t.Helper()
	p256, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), []byte(strings.Repeat("p", 32)))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"Ed25519": ed25519.NewKeyFromSeed([]byte(strings.Repeat("e", 32))), "P-256": p256}
}

// verifies is a check of its own of what a client signs with a key pair.
func verifies(public crypto.PublicKey, message, sign []byte) bool {
	if k, ok := public.(ed25519.PublicKey); ok {
		return ed25519.Verify(k, message, sign)
	}
	digest := sha256.Sum256(message)
	if len(sign) != 64 || new(big.Int).SetBytes(sign[32:]).Cmp(new(big.Int).Rsh(elliptic.P256().Params().N, 1)) > 0 {
		return false
	}
	return ecdsa.Verify(public.(*ecdsa.PublicKey), digest[:], new(big.Int).SetBytes(sign[:32]), new(big.Int).SetBytes(sign[32:]))
}

// TestKeyPairCalls has requests of both kinds, and replies that are signed well and
// badly.
func TestKeyPairCalls(t *testing.T) {
	reply := ed25519.NewKeyFromSeed([]byte(strings.Repeat("r", 32)))
	host := ed25519.NewKeyFromSeed([]byte(strings.Repeat("h", 32)))
	other := errors.New("no evidence")
	for name, signer := range pairSigners(t) {
		for what, row := range map[string]struct {
			key    ed25519.PrivateKey
			header func(string) string
			want   error
		}{
			"good":               {reply, func(h string) string { return h }, nil},
			"key of the host":    {host, func(h string) string { return h }, ErrReplySignature},
			"another instance":   {reply, func(h string) string { return strings.Replace(h, pairInstance, pairID, 1) }, other},
			"form of API keys":   {reply, func(string) string { return base64.StdEncoding.EncodeToString(make([]byte, 32)) }, ErrReplySignature},
			"no signature":       {reply, func(string) string { return "" }, ErrReplySignature},
			"cut":                {reply, func(h string) string { return h[:len(h)-4] }, ErrReplySignature},
			"a bit of signature": {reply, func(h string) string { return h[:60] + string(h[60]^1) + h[61:] }, ErrReplySignature},
		} {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				var req api.Request
				json.Unmarshal(body, &req)
				v, err := canon.Parse(body)
				if err != nil {
					t.Error(err)
					return
				}
				message := v.AppendCanonical(nil, canon.Skipping)
				sign, _ := base64.StdEncoding.DecodeString(req.Sign)
				if req.Credential != pairID || !verifies(signer.Public(), message, sign) {
					t.Errorf("%s: signature does not verify: %s", name, body)
				}
				digest := sha256.Sum256(message)
				answer := []byte(succeed(`{"list":[]}`))
				id := [16]byte{0x0b, 0x1f, 0x2e, 0x3d, 0x4c, 0x5b, 0x4a, 0x69, 0x87, 0x78, 0x69, 0x5a, 0x4b, 0x3c, 0x2d, 0x1e}
				header := api.PairReplySignature(pairInstance, ed25519.Sign(row.key, api.PairReplyMessage(&id, &digest, "ListKey", answer)))
				w.Header().Set(api.ReplySignatureHeader, row.header(header))
				w.Write(answer)
			}))
			plain, err := New(Config{URL: server.URL, Insecure: true})
			if err != nil {
				t.Fatal(err)
			}
			c, err := plain.WithKeyPair(testAppID, KeyPair{ID: pairID, Signer: signer, ReplyKey: func(_ context.Context, instance string) (ed25519.PublicKey, error) {
				if instance != pairInstance {
					return nil, other
				}
				return reply.Public().(ed25519.PublicKey), nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.ListKeys(t.Context()); !errors.Is(err, row.want) || row.want == nil && err != nil {
				t.Errorf("%s, %s: got %v, want %v", name, what, err, row.want)
			}
			server.Close()
		}
	}
}

func TestKeyPairRefused(t *testing.T) {
	plain, err := New(Config{URL: "https://localhost:9000"})
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), []byte(strings.Repeat("p", 48)))
	if err != nil {
		t.Fatal(err)
	}
	signer := pairSigners(t)["Ed25519"]
	key := func(context.Context, string) (ed25519.PublicKey, error) { return nil, nil }
	for name, row := range map[string]struct {
		appid string
		pair  KeyPair
	}{
		"no app id":     {"", KeyPair{pairID, signer, key}},
		"no id":         {testAppID, KeyPair{"", signer, key}},
		"id is no UUID": {testAppID, KeyPair{strings.ReplaceAll(pairID, "-", ""), signer, key}},
		"no signer":     {testAppID, KeyPair{pairID, nil, key}},
		"no reply key":  {testAppID, KeyPair{pairID, signer, nil}},
		"another curve": {testAppID, KeyPair{pairID, p384, key}},
	} {
		if _, err := plain.WithKeyPair(row.appid, row.pair); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	order := elliptic.P256().Params().N
	for name, sig := range map[string]struct{ R, S *big.Int }{
		"r is 0":         {new(big.Int), big.NewInt(1)},
		"s is negative":  {big.NewInt(1), big.NewInt(-1)},
		"s is the order": {big.NewInt(1), order},
	} {
		der, err := asn1.Marshal(sig)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rawSignature(elliptic.P256(), der); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := rawSignature(elliptic.P256(), []byte{0x30}); err == nil {
		t.Error("no ASN.1: accepted")
	}
}

func TestRotateAPIKey(t *testing.T) {
	for name, row := range map[string]struct{ result, want string }{
		"good":   {`{"credentialId":"c","apikey":"new","overlapEnds":5}`, ""},
		"no key": {`{"credentialId":"c"}`, "apikey"},
	} {
		var payload map[string]any
		s := (&fakeServer{answer: func(_ string, p map[string]any) string {
			payload = p
			return succeed(row.result)
		}}).start(t)
		cred, id, err := s.RotateAPIKey(t.Context(), 90e9)
		if row.want != "" {
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: got %v", name, err)
			}
			continue
		}
		if err != nil || id != "c" || cred.AppID != testAppID || cred.APIKey.Expose() != "new" {
			t.Errorf("%s: got %v, %q, %v", name, cred, id, err)
		}
		if fmt.Sprint(payload["overlapSeconds"]) != "90" || payload["action"] != "RotateAPIKey" {
			t.Errorf("payload is %v", payload)
		}
	}
	c := testClient(t)
	for _, overlap := range []int64{-1, 1e6, 30*24*3600e9 + 1e9} {
		if _, _, err := c.RotateAPIKey(t.Context(), time.Duration(overlap)); err == nil || !strings.Contains(err.Error(), "overlap") {
			t.Errorf("overlap %d: got %v", overlap, err)
		}
	}
}
