package core

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// TestTokenByLayout makes a token with the standard library alone.
func TestTokenByLayout(t *testing.T) {
	h, d := newHost(t)
	key := wire.RecordID{Type: wire.Key, Tenant: wire.UUID{1, 2}, ID: wire.UUID{3, 4}}
	s := record.ImportSession{Session: [16]byte{5, 15: 6}, Expires: 1767323045123}
	got, err := h.cores[0].newToken(key, &s)
	if err != nil {
		t.Fatal(err)
	}
	head := append([]byte{1}, s.Session[:]...)
	head = binary.BigEndian.AppendUint64(head, 1767323045123)
	head = binary.BigEndian.AppendUint32(head, 1)
	purpose, err := d.keys.Key(domainkey.ImportToken, 1)
	if err != nil {
		t.Fatal(err)
	}
	mac, domain := hmac.New(sha256.New, purpose.Expose()), d.keys.Domain()
	mac.Write(domain[:])
	mac.Write(key.Tenant[:])
	mac.Write(key.ID[:])
	mac.Write(head)
	want := base64.StdEncoding.EncodeToString(mac.Sum(head))
	if got.text() != want {
		t.Errorf("token: got %s, want %s", got.text(), want)
	}
	parsed, err := parseToken(want)
	if err != nil || parsed != got {
		t.Errorf("parseToken: got %+v, %v, want %+v", parsed, err, got)
	}
	if !h.cores[0].genuine(key, parsed) {
		t.Error("the token is not genuine")
	}
	for name, other := range map[string]wire.RecordID{
		"another tenant": {Type: wire.Key, Tenant: wire.UUID{1, 3}, ID: key.ID}, "another key": {Type: wire.Key, Tenant: key.Tenant, ID: wire.UUID{3, 5}},
		"tenant and key swapped": {Type: wire.Key, Tenant: key.ID, ID: key.Tenant},
	} {
		if h.cores[0].genuine(other, parsed) {
			t.Errorf("the token is genuine for %s", name)
		}
	}
}

// FuzzParseToken has one encoding of each token, and no genuine one that was not
// made here.
func FuzzParseToken(f *testing.F) {
	h, _ := newHost(f)
	key := wire.RecordID{Type: wire.Key, Tenant: wire.UUID{1}, ID: wire.UUID{2}}
	f.Add(mustToken(f, h.cores[0], wire.RecordID{Type: wire.Key}, record.ImportSession{Expires: 1 << 40}).text())
	f.Add("")
	f.Add("AQ==")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := parseToken(text)
		if err != nil {
			return
		}
		if token.text() != text {
			t.Errorf("token does not re-encode to the text it came from: %q and %q", token.text(), text)
		}
		if h.cores[0].genuine(key, token) {
			t.Error("a token is genuine that was never made")
		}
	})
}
