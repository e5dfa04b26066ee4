package domainkey

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
)

// TestImportTokenByHand is HKDF-Expand of RFC 5869 with one block, written out.
func TestImportTokenByHand(t *testing.T) {
	first, second := bytes.Repeat([]byte{7}, KeySize), bytes.Repeat([]byte{8}, KeySize)
	domain := genesis.ID(bytes.Repeat([]byte{9}, 32))
	ring, err := newKeyring(secret.NewHeap(), domain, []secret.Bytes{secret.Copy(first), secret.Copy(second)}, secret.New(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	for i, dk := range [][]byte{first, second} {
		m := hmac.New(sha256.New, dk)
		m.Write([]byte("ehsm/import-token/v1\x00"))
		m.Write(domain[:])
		m.Write([]byte{1})
		got, err := ring.Key(ImportToken, uint32(i+1))
		if err != nil || !bytes.Equal(got.Expose(), m.Sum(nil)) {
			t.Errorf("ImportToken(%d): got %x, %v, want %x", i+1, got.Expose(), err, m.Sum(nil))
		}
	}
	const known = "b9faf9cdaabd2daa6eb2b412d97a1d2b82582db0896efff3c762f2f8e6ea8856"
	if got, _ := ring.Key(ImportToken, 1); hex.EncodeToString(got.Expose()) != known {
		t.Errorf("ImportToken(1): got %x, want %s", got.Expose(), known)
	}
}

func TestPurposesDiffer(t *testing.T) {
	b := releasedBundles(t)[1]
	k := open(t, b.write(t), b.platform())
	seen := map[string]bool{}
	for version := uint32(1); version <= k.Current(); version++ {
		wrapping, _ := k.Key(RecordWrapping, version)
		token, err := k.Key(ImportToken, version)
		if err != nil || token.Len() != KeySize {
			t.Errorf("ImportToken(%d): got %d bytes, %v", version, token.Len(), err)
		}
		salt, err := k.Key(RewrapSalt, version)
		if err != nil || salt.Len() != KeySize {
			t.Errorf("Key(RewrapSalt, %d): got %d bytes, %v", version, salt.Len(), err)
		}
		facts, err := k.Key(NegativeFacts, version)
		if err != nil || facts.Len() != KeySize {
			t.Errorf("Key(NegativeFacts, %d): got %d bytes, %v", version, facts.Len(), err)
		}
		login, err := k.Key(LoginToken, version)
		if err != nil || login.Len() != KeySize {
			t.Errorf("Key(LoginToken, %d): got %d bytes, %v", version, login.Len(), err)
		}
		rekey, err := k.Key(RekeyApproval, version)
		if err != nil || rekey.Len() != KeySize {
			t.Errorf("Key(RekeyApproval, %d): got %d bytes, %v", version, rekey.Len(), err)
		}
		for _, key := range []secret.Bytes{wrapping, token, salt, facts, login, rekey} {
			seen[string(key.Expose())] = true
		}
	}
	if want := 6 * int(k.Current()); len(seen) != want {
		t.Errorf("got %d different keys, want %d", len(seen), want)
	}
	for _, version := range []uint32{0, k.Current() + 1, math.MaxUint32} {
		if got, err := k.Key(ImportToken, version); !errors.Is(err, ErrNoVersion) || got.Len() != 0 {
			t.Errorf("ImportToken(%d): got %d bytes, %v, want ErrNoVersion", version, got.Len(), err)
		}
	}
}
