package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"time"
)

// Reattest asks the peer for new evidence and judges it under the policy as it
// is now. The same program on the same machine must prove itself. Whatever fails
// ends the channel. The peer answers while it is not blocked by messages that its
// application does not receive. Errors: ErrEvidence, ErrChanged, ErrTimeout,
// ErrProtocol, and those of the stream.
func (c *Conn) Reattest(ctx context.Context) error {
	c.attesting.Lock()
	defer c.attesting.Unlock()
	ctx, stop := context.WithTimeoutCause(ctx, c.cfg.timeout(), ErrTimeout)
	defer stop()
	if err := c.usable(); err != nil {
		return err
	}
	var nonce [nonceSize]byte
	rand.Read(nonce[:]) // never fails
	c.setAsked(true)
	if err := c.write(ctx, challenge, nonce[:]); err != nil {
		return c.end(err) // also if ctx had ended: it must not look attested
	}
	select {
	case m := <-c.proofs:
		return c.judgeAgain(ctx, m, nonce)
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	case <-ctx.Done():
		return c.fail(fmt.Errorf("attest the peer again: %w", context.Cause(ctx)))
	}
}

// KeepAttested calls Reattest at an interval, and for each value of changed, which
// tells that collateral or manifest have changed (nil: never); once when it is
// closed. It returns when the channel or ctx has ended.
func (c *Conn) KeepAttested(ctx context.Context, every time.Duration, changed <-chan struct{}) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case _, more := <-changed:
			if !more {
				changed = nil
			}
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := c.Reattest(ctx); err != nil {
			return err
		}
	}
}

// setAsked returns whether a challenge was under way.
func (c *Conn) setAsked(asked bool) (was bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, c.asked = c.asked, asked
	return was
}

// takeProof passes the answer of a challenge on.
func (c *Conn) takeProof(payload []byte) error {
	m, err := decodeProof(payload)
	if err != nil {
		return err
	}
	if !c.setAsked(false) { // check: proof-asked
		return fmt.Errorf("%w: nobody has asked for the proof", ErrProtocol)
	}
	c.proofs <- m // has room: there is one for each challenge
	return nil
}

// bindingAgain is what evidence of a side stands for on the open channel.
func (c *Conn) bindingAgain(s Side, nonce [nonceSize]byte) (b binding, err error) {
	prover, spki, hpkeKey := c.cfg.Role, c.st.own, c.key.PublicKey().Bytes()
	if s != c.side {
		p := c.Peer()
		prover, spki, hpkeKey = p.Role, c.st.peer, p.HPKEKey
	}
	b = binding{domain: c.cfg.Domain, role: prover, nonce: nonce, spki: spki, hpkeKey: sha256.Sum256(hpkeKey), opening: c.opening}
	b.exporter, err = c.st.export(label(c.method.Kind(), forAgain, s, prover), nonce[:])
	return b, err
}

func (c *Conn) judgeAgain(ctx context.Context, m proofMessage, nonce [nonceSize]byte) error {
	b, err := c.bindingAgain(c.side.other(), nonce)
	if err != nil {
		return c.fail(err)
	}
	old := c.Peer()
	p, err := judge(ctx, c.cfg, c.method, &ticket{}, old.Role, m, b.reportData(c.method.Kind()))
	if err != nil {
		return c.fail(err)
	}
	if p.Identity != old.Identity { // check: same-program
		return c.fail(fmt.Errorf("%w: program %x, was %x", ErrChanged, p.Identity.Measurement, old.Identity.Measurement))
	}
	if !p.Machine.Same(old.Machine) { // check: same-machine
		return c.fail(fmt.Errorf("%w: machine with %v, was %v", ErrChanged, p.Machine, old.Machine))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.HPKEKey, p.Manifest = c.peer.HPKEKey, c.peer.Manifest
	c.peer = p
	return nil
}

// answer makes new evidence for the peer's challenge, beside what else is
// received.
func (c *Conn) answer(payload []byte) error {
	nonce, err := decodeFixed(challenge, payload)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answering { // check: one-challenge
		return fmt.Errorf("%w: a challenge before the last is answered", ErrProtocol)
	}
	c.answering = true
	c.ended.Go(func() {
		m, err := c.prove(nonce)
		if err != nil {
			c.fail(err)
			return
		}
		c.mu.Lock()
		c.answering = false // before the answer, after which the next may come
		c.mu.Unlock()
		c.write(c.ctx, proof, m.append(nil)) // its error has ended the channel
	})
	return nil
}

func (c *Conn) prove(nonce [nonceSize]byte) (proofMessage, error) {
	b, err := c.bindingAgain(c.side, nonce)
	if err != nil {
		return proofMessage{}, err
	}
	return prove(c.ctx, c.method, &ticket{}, c.theirs, b.reportData(c.method.Kind()))
}
