package attested

import (
	"crypto/hpke"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// TestEnrollAt has the core's half of the exchange, and a host that changes its reply.
func TestEnrollAt(t *testing.T) {
	kem := hpke.MLKEM768X25519()
	core, err := kem.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	r := &Report{Instance: instanceText, DomainID: [32]byte{1}, HPKEPublicKey: core.PublicKey().Bytes()}
	id, err := parseInstance(instanceText)
	if err != nil {
		t.Fatal(err)
	}
	token, other := api.NewEnrollToken(), []byte("secret of another request, 32 b.")
	var change func(secret []byte, res *api.EnrollFinishResult) []byte
	var sent string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		var req api.EnrollFinishRequest
		if err := json.NewDecoder(q.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		sent += string(req.Ciphertext)
		c, err := hpke.NewRecipient(req.Enc, core, hpke.HKDFSHA256(), hpke.AES256GCM(), api.EnrollInfo(r.DomainID, id))
		if err != nil {
			t.Error(err)
			return
		}
		text, err := c.Open(nil, req.Ciphertext)
		if err != nil {
			t.Error(err)
			return
		}
		ask, err := api.DecodeEnrollAsk(text)
		if err != nil || ask.Token != *token.Bytes() || ask.Label != "laptop" {
			t.Errorf("got %v", err)
			return
		}
		secret, _ := c.Export(api.EnrollReplyExport, 32)
		res := api.EnrollFinishResult{InstanceID: instanceText}
		if change != nil {
			secret = change(secret, &res)
		}
		key, _ := kem.NewPublicKey(ask.PublicKey[:])
		enc, s, _ := hpke.NewSender(key, hpke.HKDFSHA256(), hpke.AES256GCM(), api.EnrollReplyInfo(r.DomainID, id, secret))
		g := api.EnrollGrant{AppID: [16]byte{7}, APIKey: []byte("the key")}
		sealed, _ := s.Seal(nil, g.Append(nil))
		if res.Enc == nil {
			res.Enc, res.Ciphertext = enc, sealed
		}
		json.NewEncoder(w).Encode(api.Reply[any]{Code: 200, Message: "successful", Result: res})
	}))
	defer server.Close()
	c, err := ehsm.New(ehsm.Config{URL: server.URL, Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	cred, err := enrollAt(t.Context(), c, r, token, "laptop")
	if err != nil || cred.AppID != "07000000-0000-0000-0000-000000000000" || cred.APIKey.Expose() != "the key" {
		t.Fatalf("got %v, %v", cred, err)
	}
	if strings.Contains(sent, string(token.Bytes()[16:])) {
		t.Error("the token is in the clear")
	}
	for name, f := range map[string]func([]byte, *api.EnrollFinishResult) []byte{
		"reply of a host, who lacks the secret": func([]byte, *api.EnrollFinishResult) []byte { return other },
		"no reply": func(s []byte, res *api.EnrollFinishResult) []byte {
			res.Enc = []byte{}
			return s
		},
		"key that is none": func(s []byte, res *api.EnrollFinishResult) []byte {
			res.Enc, res.Ciphertext = make([]byte, 1120), make([]byte, 64)
			return s
		},
	} {
		change = f
		if cred, err := enrollAt(t.Context(), c, r, token, "laptop"); !errors.Is(err, api.ErrEnroll) || !cred.APIKey.IsZero() {
			t.Errorf("%s: got %v, %v", name, cred, err)
		}
	}
}
