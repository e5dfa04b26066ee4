// Package audit chains what the core did, and signs the chain.
//
// Each start of the core, an instance, has a signing key of its own, which the
// domain's key endorses in the first entry. The package trusts the clock it is
// handed and hides only the instance's private key. What the host does with the
// entries shows when the copies are verified: package trail.
package audit

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"sync"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

// A checkpoint follows the first entry that comes this long or this many
// entries after the one before.
const (
	checkpointEntries = 1000
	checkpointMicros  = 1_000_000
)

// A Signer endorses the instance's key with the domain's key.
type Signer interface {
	Domain() genesis.ID
	Sign(message []byte) []byte
}

// Chain is the audit chain of one instance. Its methods are safe for concurrent
// use.
type Chain struct {
	instance wire.UUID
	domain   [32]byte
	key      ed25519.PrivateKey // on the heap: crypto/ed25519 takes no other, and keeps an expanded copy
	public   [32]byte

	mu         sync.Mutex
	start      *trail.Entry // not yet handed out
	sequence   uint64       // of the last entry
	head       [32]byte     // chain value of the last entry
	unsigned   int          // entries since the last checkpoint
	lastSigned int64        // time of the last checkpoint, Unix microseconds
}

// New starts the chain of a new instance of a domain on a platform. now is the
// TEE's time in Unix microseconds.
func New(domain Signer, platform string, now int64) (*Chain, error) {
	var public ed25519.PublicKey
	var private ed25519.PrivateKey
	var err error
	secret.Do(func() { public, private, err = ed25519.GenerateKey(rand.Reader) })
	if err != nil {
		return nil, fmt.Errorf("make the instance's audit key: %w", err)
	}
	c := &Chain{instance: wire.NewUUID(), domain: domain.Domain(), key: private, lastSigned: now}
	c.head = trail.First(c.domain, c.instance)
	copy(c.public[:], public)
	c.start = &trail.Entry{Kind: trail.Start, Time: now, Domain: c.domain, PublicKey: c.public, Platform: platform}
	copy(c.start.Endorsement[:], domain.Sign(trail.EndorsementMessage(c.domain, c.instance, c.public)))
	return c, nil
}

// Instance returns the id of this start of the core.
func (c *Chain) Instance() wire.UUID { return c.instance }

// PublicKey returns the Ed25519 key that signs the checkpoints.
func (c *Chain) PublicKey() [32]byte { return c.public }

// Append chains e, whose sequence number and instance it fills in, and returns
// the frames to hand to the sink: e, and a checkpoint if one is due.
func (c *Chain) Append(e *trail.Entry) wire.Audit {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.begin(trail.MaxEntry)
	c.add(&a, e)
	if c.unsigned >= checkpointEntries || e.Time-c.lastSigned >= checkpointMicros {
		c.sign(&a, e.Time)
	}
	return a
}

// Checkpoint chains entries, as Append does, and signs the chain at time now, if
// there is anything to sign.
func (c *Chain) Checkpoint(now int64, entries ...*trail.Entry) wire.Audit {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.begin(0)
	for _, e := range entries {
		c.add(&a, e)
	}
	if c.unsigned > 0 {
		c.sign(&a, now)
	}
	return a
}

// begin starts a run of entries, with the start entry if it is still to come.
// The caller must hold c.mu.
func (c *Chain) begin(size int) wire.Audit {
	a := wire.Audit{Frames: make([]byte, 0, size)}
	if c.start != nil {
		e := c.start
		c.start = nil
		c.add(&a, e)
	}
	return a
}

// add chains one entry. The caller must hold c.mu.
func (c *Chain) add(a *wire.Audit, e *trail.Entry) {
	c.sequence++
	e.Sequence, e.Instance = c.sequence, c.instance
	var buf [trail.MaxEntry]byte
	entry := e.Append(buf[:0])
	c.head = trail.Chain(c.head, entry)
	c.unsigned++
	if a.Count == 0 {
		a.First = e.Sequence
	}
	a.Count++
	a.Frames = trail.AppendFrame(a.Frames, entry, c.head)
}

// sign adds a checkpoint. The caller must hold c.mu.
func (c *Chain) sign(a *wire.Audit, now int64) {
	e := &trail.Entry{Kind: trail.Checkpoint, Time: now, Head: c.head}
	message := trail.CheckpointMessage(c.domain, c.instance, c.sequence+1, now, c.head)
	secret.Do(func() { copy(e.Signature[:], ed25519.Sign(c.key, message)) })
	c.add(a, e)
	c.unsigned, c.lastSigned = 0, now
}
