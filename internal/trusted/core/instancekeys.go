package core

import (
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/api/sealed"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// keyLife is for how long evidence binds an HPKE key before there is another one.
// What was sealed to a key that is gone nobody opens, also not who gets into the TEE
// later; more often would cost every client another quote.
const keyLife = 24 * time.Hour

// maxContexts is how many shared secrets are remembered for a key, twice.
const maxContexts = 4096

// An instanceKey is an HPKE key pair of this core. Evidence binds the public half,
// so that what is encrypted to it only this core can read.
type instanceKey struct {
	public  [wire.HPKEKeySize]byte
	id      string       // sealed.KeyID
	private secret.Bytes // as RFC 9180 serializes it
	since   int64        // Unix microseconds
	until   int64        // from then on it opens nothing; 0: it is the current one

	contexts contexts
}

// instanceKeys are the current key and the one before it, which opens what is under
// way when the current one comes. It is safe for concurrent use.
type instanceKeys struct {
	mu      sync.Mutex
	current *instanceKey
	former  *instanceKey    // nil: there is none
	rooms   [2]secret.Bytes // of the private halves, in turn
}

const privateSize = 32 // bytes of a private key of MLKEM768-X25519

// newInstanceKeys makes the first key pair. Private halves lie in home.
func newInstanceKeys(home *secret.Home, now int64) (*instanceKeys, error) {
	k := &instanceKeys{}
	for i := range k.rooms {
		var err error
		if k.rooms[i], err = home.Make(privateSize); err != nil {
			return nil, fmt.Errorf("make room for the instance's HPKE key: %w", err)
		}
	}
	if err := k.generate(now); err != nil {
		return nil, err
	}
	return k, nil
}

// generate makes another current key in the room that is free. The caller must hold
// k.mu or be the only one.
func (k *instanceKeys) generate(now int64) (err error) {
	made := &instanceKey{private: k.rooms[0], since: now}
	secret.Do(func() { err = made.generate() })
	if err != nil {
		return fmt.Errorf("make the instance's HPKE key: %w", err)
	}
	made.id = sealed.KeyID(made.public[:])
	k.rooms[0], k.rooms[1] = k.rooms[1], k.rooms[0]
	k.current, k.former = made, k.current
	return nil
}

func (k *instanceKey) generate() error {
	pair, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return err
	}
	private, err := pair.Bytes()
	if err != nil {
		return err
	}
	defer clear(private)
	if n := copy(k.public[:], pair.PublicKey().Bytes()); n != len(k.public) {
		return fmt.Errorf("public key of %d bytes, want %d", n, len(k.public))
	}
	if n := copy(k.private.Expose(), private); n != len(private) || n != privateSize {
		return fmt.Errorf("private key of %d bytes, want %d", len(private), privateSize)
	}
	return nil
}

// at returns the key for new evidence. When the current one has reached its age there
// is another, and the old one opens for one window more. All times are Unix
// microseconds; window is how old a request may be.
func (k *instanceKeys) at(now, window int64) *instanceKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expire(now)
	if now-k.current.since < keyLife.Microseconds() || k.former != nil {
		return k.current
	}
	if k.generate(now) == nil { // without one the old key goes on; it is tried again
		k.former.until = now + window
	}
	return k.current
}

// named returns the key with an id, nil if there is none any more.
func (k *instanceKeys) named(id string, now int64) *instanceKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.expire(now)
	switch {
	case k.current.id == id:
		return k.current
	case k.former != nil && k.former.id == id:
		return k.former
	}
	return nil
}

// expire forgets the former key at its end. The caller must hold k.mu.
func (k *instanceKeys) expire(now int64) {
	if k.former != nil && now >= k.former.until { // check: sealed-key-end
		k.former.private.Zero()
		k.former.contexts.clear()
		k.former = nil
	}
}

// share returns the secret that a client shares with the key, for the caller to own.
// What is encapsulated for another key gives another secret, which opens nothing.
func (k *instanceKeys) share(key *instanceKey, info []byte, encapsulated *[sealed.EncapsulatedSize]byte) (secret.Bytes, error) {
	if s, ok := key.contexts.get(encapsulated); ok {
		return s, nil
	}
	private := k.copyOf(key)
	if private == nil {
		return secret.Bytes{}, errors.New("key is gone")
	}
	defer clear(private)
	shared := make([]byte, sealed.SecretSize)
	var err error
	secret.Do(func() { err = decapsulate(shared, private, info, encapsulated[:]) })
	return secret.New(shared), err
}

// copyOf copies the private half: its room is used again once the key is gone.
func (k *instanceKeys) copyOf(key *instanceKey) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	if key != k.current && key != k.former {
		return nil
	}
	return append([]byte(nil), key.private.Expose()...)
}

func decapsulate(shared, private, info, encapsulated []byte) error {
	pair, err := hpke.MLKEM768X25519().NewPrivateKey(private)
	if err != nil {
		return err
	}
	r, err := hpke.NewRecipient(encapsulated, pair, hpke.HKDFSHA256(), hpke.ExportOnly(), info)
	if err != nil {
		return err
	}
	exported, err := r.Export(sealed.ExportLabel, len(shared))
	if err != nil {
		return err
	}
	copy(shared, exported)
	clear(exported)
	return nil
}

// contexts remembers shared secrets by a hash of the encapsulated key, because
// decapsulation costs more than all the rest of a request. It has two generations of
// maxContexts. The zero value is usable.
type contexts struct {
	mu         sync.Mutex
	young, old map[[32]byte]secret.Bytes
	gone       bool // nothing is remembered any more
}

// get returns a copy, so that the one here can be overwritten at any time.
func (c *contexts) get(encapsulated *[sealed.EncapsulatedSize]byte) (secret.Bytes, bool) {
	name := sha256.Sum256(encapsulated[:])
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.young[name]
	if !ok {
		if s, ok = c.old[name]; !ok {
			return secret.Bytes{}, false
		}
	}
	return secret.Copy(s.Expose()), true
}

// put remembers a copy of the secret of a client that has shown who it is: strangers
// must not take the places of tenants.
func (c *contexts) put(encapsulated *[sealed.EncapsulatedSize]byte, s secret.Bytes) {
	name := sha256.Sum256(encapsulated[:])
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.young[name]; ok || c.gone {
		return
	}
	if c.young == nil || len(c.young) >= maxContexts {
		zero(c.old)
		c.young, c.old = map[[32]byte]secret.Bytes{}, c.young
	}
	c.young[name] = secret.Copy(s.Expose())
}

// clear forgets all, for good.
func (c *contexts) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	zero(c.young)
	zero(c.old)
	c.young, c.old, c.gone = nil, nil, true
}

func zero(secrets map[[32]byte]secret.Bytes) {
	for _, s := range secrets {
		s.Zero()
	}
}
