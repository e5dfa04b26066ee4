package session

import (
	"context"
	"crypto/hpke"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// A Conn is an open channel to an attested peer. Its methods are safe for
// concurrent use. An error ends the channel, but for those that are said to leave
// it as it was; all methods return it from then on.
type Conn struct {
	side    Side
	cfg     *Config
	method  Method
	st      *stream
	theirs  openingMessage
	key     hpke.PrivateKey
	opening [32]byte
	full    [32]byte // transcript

	ctx    context.Context // ends with the channel; its cause is the error
	cancel context.CancelCauseFunc
	inbox  chan []byte
	proofs chan proofMessage
	ended  sync.WaitGroup

	writing   sync.Mutex
	attesting sync.Mutex // one Reattest at a time

	mu        sync.Mutex
	peer      Peer
	asked     bool // a challenge is under way to the peer
	answering bool // a challenge of the peer is being answered
}

func newConn(h *handshake) *Conn {
	c := &Conn{
		side: h.side, cfg: h.cfg, method: h.method, st: h.st, theirs: h.theirs, key: h.key,
		opening: h.opening(), full: h.transcript(), peer: h.peer,
		inbox: make(chan []byte, 4), proofs: make(chan proofMessage, 1),
	}
	c.peer.Manifest = h.manifest
	c.st.SetDeadline(time.Time{})
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.seen(h.manifest)
	c.ended.Go(c.readAll)
	return c
}

// Side says which end this is.
func (c *Conn) Side() Side { return c.side }

// Peer returns who the peer was proved to be when it was attested last.
func (c *Conn) Peer() Peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer
}

func (c *Conn) seen(manifest uint64) {
	if c.cfg.ManifestSeen != nil {
		c.cfg.ManifestSeen(c.theirs.role, manifest)
	}
}

// usable returns the error of a channel that has ended, and ends one whose peer
// must be attested again.
func (c *Conn) usable() error {
	if err := context.Cause(c.ctx); err != nil {
		return err
	}
	p, now := c.Peer(), c.cfg.Policy.Now()
	switch {
	case now.After(p.Attested.Add(c.cfg.maxAge())): // check: evidence-age
		return c.fail(fmt.Errorf("%w: it is of %s", ErrExpired, p.Attested.Format(time.RFC3339)))
	case !p.Until.IsZero() && now.After(p.Until): // check: evidence-end
		return c.fail(fmt.Errorf("%w: on %s", ErrExpired, p.Until.Format(time.RFC3339)))
	}
	return nil
}

// Send sends one message of 1 to MaxMessage bytes, as a whole and in order. The
// caller may reuse it. ErrTooLong, and the error of a ctx that ends before the
// message is begun, leave the channel as it was.
func (c *Conn) Send(ctx context.Context, message []byte) error {
	if len(message) == 0 || len(message) > MaxMessage {
		return fmt.Errorf("%w: %d bytes, want 1 to %d", ErrTooLong, len(message), MaxMessage)
	}
	if err := c.usable(); err != nil {
		return err
	}
	return c.write(ctx, data, message)
}

func (c *Conn) write(ctx context.Context, k kind, payload []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	stop := context.AfterFunc(ctx, func() { c.st.SetWriteDeadline(time.Unix(1, 0)) })
	_, err := c.st.Write(frame{k, c.cfg.Policy.Manifest(), payload}.append(nil))
	if err == nil && !stop() {
		err = context.Cause(ctx) // its deadline may hit any later message
	}
	if err != nil {
		return c.fail(because(ctx, fmt.Errorf("send %v: %w", k, truncated(err))))
	}
	return nil
}

// Receive returns the next message, which is then the caller's. It returns
// io.EOF when the peer has said goodbye and all that it sent before is received.
// Where ctx ends first, the channel is as it was.
func (c *Conn) Receive(ctx context.Context) ([]byte, error) {
	if err := c.usable(); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	select {
	case m := <-c.inbox:
		return c.received(m)
	case <-c.ctx.Done():
		return c.last()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// received hands a message out if its sender may still be listened to.
func (c *Conn) received(m []byte) ([]byte, error) {
	if err := c.usable(); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return m, nil
}

// last hands out what came before a goodbye, and nothing after any other end.
func (c *Conn) last() ([]byte, error) {
	err := context.Cause(c.ctx)
	if errors.Is(err, io.EOF) {
		select {
		case m := <-c.inbox:
			return m, nil
		default:
		}
	}
	return nil, err
}

// Close says goodbye, ends the channel and waits for its goroutines. It may be
// called again. Errors: none that matter.
func (c *Conn) Close() error {
	first := c.ctx.Err() == nil
	c.cancel(ErrClosed)
	c.st.SetWriteDeadline(time.Now().Add(refusalTime)) // frees a writer, too
	c.writing.Lock()
	if first {
		c.st.Write(frame{goodbye, c.cfg.Policy.Manifest(), nil}.append(nil)) // best effort
	}
	c.writing.Unlock()
	c.end(ErrClosed)
	c.ended.Wait()
	return nil
}

// end ends the channel, and returns the error for which it has ended first.
func (c *Conn) end(err error) error {
	c.cancel(err)
	c.st.NetConn().Close()
	return context.Cause(c.ctx)
}

// fail is end for a reason that the peer is told if no message is under way. The
// peer closes at once, which must not look like the reason.
func (c *Conn) fail(err error) error {
	first := c.ctx.Err() == nil
	c.cancel(err)
	if reason := reasonOf(err); first && reason != ReasonOther && c.writing.TryLock() {
		c.st.SetWriteDeadline(time.Now().Add(refusalTime))
		c.st.Write(frame{refused, c.cfg.Policy.Manifest(), []byte{byte(reason)}}.append(nil)) // best effort
		c.writing.Unlock()
	}
	return c.end(err)
}

// readAll takes messages until the channel ends.
func (c *Conn) readAll() {
	free := func(int) error { return nil } // an attested peer, one message at a time
	for {
		f, err := readFrame(c.st, free, data, challenge, proof, goodbye, refused)
		if err == nil {
			err = c.take(f)
		}
		if err == io.EOF {
			c.end(err)
			return
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
}

// take deals with one message. It returns io.EOF for a goodbye.
func (c *Conn) take(f frame) error {
	if err := c.raise(f.manifest); err != nil {
		return err
	}
	switch f.kind {
	case data:
		return c.deliver(f.payload)
	case challenge:
		return c.answer(f.payload)
	case proof:
		return c.takeProof(f.payload)
	case refused:
		return refusal(f.payload)
	}
	return io.EOF
}

// raise takes note of the peer's manifest version.
func (c *Conn) raise(manifest uint64) error {
	c.mu.Lock()
	before := c.peer.Manifest
	c.peer.Manifest = max(before, manifest)
	c.mu.Unlock()
	if manifest < before { // check: manifest-back-open
		return fmt.Errorf("%w: manifest %d after %d", ErrProtocol, manifest, before)
	}
	if manifest > before {
		c.seen(manifest)
	}
	return nil
}

// deliver waits until the application has room for the message.
func (c *Conn) deliver(message []byte) error {
	if len(message) == 0 { // check: empty-message
		return fmt.Errorf("%w: empty message", ErrProtocol)
	}
	select {
	case c.inbox <- message:
		return nil
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
}
