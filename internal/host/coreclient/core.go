package coreclient

import (
	"context"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// empty is a message without content.
type empty struct{}

func (empty) Append(dst []byte) []byte { return dst }

// Info implements wire.Core.
func (c *Client) Info(ctx context.Context) (wire.Info, error) {
	s := c.pick(nil)
	if s == nil {
		return wire.Info{}, ErrUnreachable
	}
	f, err := s.roundTrip(ctx, wire.OpInfo, empty{})
	if err != nil {
		return wire.Info{}, err
	}
	return wire.DecodeInfo(f.Payload)
}

// Call implements wire.Core. It does not keep call after it returns.
func (c *Client) Call(ctx context.Context, call *wire.Call) (*wire.Answer, error) {
	return c.ask(ctx, wire.OpCall, call)
}

// Sweep implements wire.Core.
func (c *Client) Sweep(ctx context.Context, s *wire.Sweep) (*wire.Answer, error) {
	return c.ask(ctx, wire.OpSweep, s)
}

// Checkpoint implements wire.Core.
func (c *Client) Checkpoint(ctx context.Context) (*wire.Answer, error) {
	return c.ask(ctx, wire.OpCheckpoint, empty{})
}

// Stats implements wire.Meter.
func (c *Client) Stats(ctx context.Context) (wire.Stats, error) {
	s := c.pick(nil)
	if s == nil {
		return wire.Stats{}, ErrUnreachable
	}
	f, err := s.roundTrip(ctx, wire.OpStats, empty{})
	if err != nil {
		return wire.Stats{}, err
	}
	return wire.DecodeStats(f.Payload)
}

// Facts implements wire.Witness.
func (c *Client) Facts(ctx context.Context, f *wire.Facts) (wire.FactsState, error) {
	s := c.pick(nil)
	if s == nil {
		return wire.FactsState{}, ErrUnreachable
	}
	answer, err := s.roundTrip(ctx, wire.OpFacts, f)
	if err != nil {
		return wire.FactsState{}, err
	}
	return wire.DecodeFactsState(answer.Payload)
}

// Resolve implements wire.Core. It goes to the instance whose answer is to be
// resolved, and fails with ErrRestarted if that is gone.
func (c *Client) Resolve(ctx context.Context, r wire.Resolve) (*wire.Answer, error) {
	c.mu.Lock()
	p, ok := c.pending[r.Handle]
	delete(c.pending, r.Handle)
	c.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("%w: no pending answer %d", ErrRefused, r.Handle)
	}
	s := c.pick(&p.instance)
	if s == nil {
		if c.pick(nil) == nil {
			return nil, ErrUnreachable
		}
		return nil, ErrRestarted
	}
	r.Handle = p.handle
	return c.answer(ctx, s, wire.OpResolve, r)
}

// ask sends a message on any connection.
func (c *Client) ask(ctx context.Context, op wire.Op, m appender) (*wire.Answer, error) {
	s := c.pick(nil)
	if s == nil {
		return nil, ErrUnreachable
	}
	a, err := c.answer(ctx, s, op, m)
	if err == nil && a.Kind == wire.Pending {
		c.mu.Lock()
		c.handles++
		c.pending[c.handles] = pending{s.info.Instance, a.Handle}
		a.Handle = c.handles
		c.mu.Unlock()
	}
	return a, err
}

// answer sends a message on one connection.
func (c *Client) answer(ctx context.Context, s *session, op wire.Op, m appender) (*wire.Answer, error) {
	f, err := s.roundTrip(ctx, op, m)
	if err != nil {
		return nil, err
	}
	return wire.DecodeAnswer(f.Payload)
}
