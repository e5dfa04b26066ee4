package acceptance

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

const (
	sealLabel = "ehsm/acceptance-seal/v1\x00"
	sealText  = "this was sealed by an acceptance run"
)

// sealKeys makes a key under each policy, seals the text with it, and checks that
// the platform gives it again for its request, and for no other.
func (r *run) sealKeys(context.Context) (string, error) {
	for _, policy := range []tee.Policy{tee.BindSigner, tee.BindMeasured} {
		q, key, err := tee.NewSealKey(r.Platform, policy)
		if err != nil {
			return "", err
		}
		err = r.sealKey(q, key)
		key.Zero()
		if err != nil {
			return "", fmt.Errorf("policy %d: %w", policy, err)
		}
	}
	return "of both policies: the same key for its request, another or none for all others", nil
}

func (r *run) sealKey(q tee.KeyRequest, key secret.Bytes) error {
	b := key.Expose()
	if len(b) != 32 || bytes.Count(b, b[:1]) == len(b) {
		return errors.New("the key has not 32 bytes, or all are the same")
	}
	if again, err := r.sameKey(q, key); err != nil {
		return fmt.Errorf("ask for the key again: %w", err)
	} else if !again {
		return errors.New("the platform gives another key for the same request")
	}
	for _, row := range otherRequests(q) {
		// An error is as good as another key, unless one must be refused.
		same, err := r.sameKey(row.request, key)
		if same {
			return fmt.Errorf("%s: the platform gives the same key", row.name)
		}
		if row.refused && !errors.Is(err, tee.ErrKeyRequest) {
			return fmt.Errorf("%s: got %v, want a refusal", row.name, err)
		}
	}
	aead, err := sealCipher(key)
	if err != nil {
		return err
	}
	// The key seals once, so a nonce of zeros is no second use.
	sealed := aead.Seal(nil, make([]byte, aead.NonceSize()), []byte(sealText), []byte(sealLabel))
	r.result.Seals = append(r.result.Seals, acceptance.Seal{
		Policy: uint8(q.Policy), SVN: q.SVN, KeyID: q.KeyID[:], Info: q.Info, Sealed: sealed,
	})
	return nil
}

func (r *run) sameKey(q tee.KeyRequest, key secret.Bytes) (bool, error) {
	got, err := r.Platform.SealKey(q)
	if err != nil {
		return false, err
	}
	defer got.Zero()
	return got.Equal(key), nil
}

type otherRequest struct {
	name    string
	request tee.KeyRequest
	refused bool // another key will not do
}

// otherRequests are requests for other keys than that of q.
func otherRequests(q tee.KeyRequest) []otherRequest {
	id, policy, lower, higher := q, q, q, q
	id.KeyID[0] ^= 1
	policy.Policy = tee.BindSigner + tee.BindMeasured - q.Policy
	lower.SVN--
	higher.SVN++
	rows := []otherRequest{
		{"another KEYID", id, false},
		{"the other policy", policy, false},
		{"a request without a policy", tee.KeyRequest{SVN: q.SVN, KeyID: q.KeyID, Info: q.Info}, true},
		{"an empty request", tee.KeyRequest{}, true},
	}
	if lower.SVN < q.SVN { // or there is none
		rows = append(rows, otherRequest{"a lower version", lower, false})
	}
	if higher.SVN > q.SVN {
		rows = append(rows, otherRequest{"a higher version", higher, true})
	}
	return rows
}

// openSeals opens what an earlier run sealed on this machine.
func (r *run) openSeals(context.Context) (string, error) {
	for _, s := range r.request.Seals {
		q := tee.KeyRequest{Policy: tee.Policy(s.Policy), SVN: s.SVN, KeyID: [32]byte(s.KeyID), Info: s.Info}
		key, err := r.Platform.SealKey(q)
		if err != nil {
			return "", err
		}
		aead, err := sealCipher(key)
		key.Zero()
		if err != nil {
			return "", err
		}
		text, err := aead.Open(nil, make([]byte, aead.NonceSize()), s.Sealed, []byte(sealLabel))
		if err != nil || string(text) != sealText {
			return "", fmt.Errorf("policy %d: the key does not open what was sealed before", s.Policy)
		}
		r.result.Opened = append(r.result.Opened, s.KeyID)
	}
	return fmt.Sprintf("%d seals of the run before open", len(r.request.Seals)), nil
}

// sealCipher derives from a seal key, so that a host that passes the request of a
// domain's seal key has nothing encrypted or opened under that key itself.
func sealCipher(key secret.Bytes) (cipher.AEAD, error) {
	own, err := hkdf.Key(sha256.New, key.Expose(), nil, sealLabel, 32)
	if err != nil {
		return nil, err
	}
	defer clear(own)
	block, err := aes.NewCipher(own)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
