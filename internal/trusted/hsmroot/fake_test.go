package hsmroot

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/hsm"
)

// A token is an HSM in memory. Whoever has it, as a host has with the PIN, can have
// it wrap and unwrap.
type token struct {
	mu   sync.Mutex
	keys map[string]cipher.AEAD
	// first names the key for new bundles.
	first string
	// spoil changes answers, as a host can. nil: it does not.
	spoil func(*hsm.Wrapped, []byte)
}

func newToken(t testing.TB, labels ...string) *token {
	t.Helper()
	k := &token{keys: map[string]cipher.AEAD{}, first: labels[0]}
	for _, label := range labels {
		k.add(t, label)
	}
	return k
}

// add makes a key, in place of one with the same label.
func (k *token) add(t testing.TB, label string) {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[label] = aead
}

// Wrap implements Module.
func (k *token) Wrap(label string, context [32]byte, key secret.Bytes) (hsm.Wrapped, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if label == "" {
		label = k.first
	}
	aead, ok := k.keys[label]
	if !ok {
		return hsm.Wrapped{}, fmt.Errorf("%w: no key %s", ErrHSM, label)
	}
	w := hsm.Wrapped{Label: label, Mechanism: hsm.GCM, Blob: aead.Seal(nil, nil, key.Expose(), context[:])}
	if k.spoil != nil {
		k.spoil(&w, nil)
	}
	return w, nil
}

// Unwrap implements Module.
func (k *token) Unwrap(context [32]byte, w hsm.Wrapped) (secret.Bytes, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	aead, ok := k.keys[w.Label]
	if !ok {
		return secret.Bytes{}, fmt.Errorf("%w: no key %s", ErrHSM, w.Label)
	}
	key, err := aead.Open(nil, nil, w.Blob, context[:])
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %w", ErrHSM, err)
	}
	if k.spoil != nil {
		k.spoil(nil, key)
	}
	return secret.New(key), nil
}

// machine is a TEE that derives seal keys as hardware does.
type machine struct {
	fuse byte // the CPU's secret
	id   tee.Identity
}

func node() machine {
	return machine{fuse: 1, id: tee.Identity{Measurement: [32]byte{1}, Signer: [32]byte{2}, Product: tee.ProductDKeyServer, SVN: 5}}
}

func (m machine) Name() string           { return "test machine" }
func (m machine) Simulated() bool        { return false }
func (m machine) Identity() tee.Identity { return m.id }

func (m machine) SealKey(q tee.KeyRequest) (secret.Bytes, error) {
	switch {
	case q.SVN > m.id.SVN:
		return secret.Bytes{}, fmt.Errorf("%w: version %d", tee.ErrKeyRequest, q.SVN)
	case len(q.Info) > 0:
		return secret.Bytes{}, fmt.Errorf("%w: information", tee.ErrKeyRequest)
	case q.Policy != tee.BindSigner && q.Policy != tee.BindMeasured:
		return secret.Bytes{}, fmt.Errorf("%w: policy %d", tee.ErrKeyRequest, q.Policy)
	}
	bound := m.id.Signer
	if q.Policy == tee.BindMeasured {
		bound = m.id.Measurement
	}
	k := sha256.Sum256(fmt.Appendf(nil, "%d %d %x %d %d %x", m.fuse, q.Policy, bound, m.id.Product, q.SVN, q.KeyID))
	return secret.New(k[:]), nil
}

// sealless is a machine without seal keys.
type sealless struct{ machine }

func (sealless) SealKey(tee.KeyRequest) (secret.Bytes, error) {
	return secret.Bytes{}, tee.ErrNoSealKey
}

// answering gives one key for all requests.
type answering struct {
	machine
	key []byte
}

func (a answering) SealKey(tee.KeyRequest) (secret.Bytes, error) { return secret.Copy(a.key), nil }
