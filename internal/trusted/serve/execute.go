package serve

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A runner has the core execute one message.
type runner func(context.Context) (appender, error)

// A job is one frame to be executed.
type job struct {
	conn   *conn
	op     wire.Op
	number uint64
	run    runner
	tenant wire.UUID // as the manager says, zero for what it asks itself
}

// A refusal is why a message was not executed, for the peer.
type refusal string

// Append implements appender.
func (r refusal) Append(dst []byte) []byte { return append(dst, r...) }

const maxRefusal = 512 // bytes of its text

var (
	errBusy  = errors.New("too many calls are waiting")
	errPanic = errors.New("internal error of the core")
	errSize  = errors.New("answer is over the limit of a frame")
)

// A place is where a frame is executed.
type place uint8

const (
	here     place = iota // between two reads of the stream
	inTurn                // it is expensive
	byItself              // it waits for something else than a processor
)

// dispatch executes a frame, or has it executed.
func (s *server) dispatch(ctx context.Context, c *conn, f wire.Frame) {
	j := job{conn: c, op: f.Op, number: f.Number}
	var at place
	var err error
	if f.Op == wire.OpCall {
		at, err = s.prepareCall(&j, f.Payload)
	} else {
		j.run, at, err = s.prepare(f)
	}
	taken := true
	switch {
	case err != nil:
		c.refuse(f.Number, err)
	case at == inTurn:
		c.jobs.Add(1)
		var now bool
		if _, now, taken = s.turns.Ask(j.tenant, func() job { return j }); now {
			go s.work(ctx, j)
		}
	case at == byItself:
		c.jobs.Add(1)
		select {
		case s.slow <- struct{}{}:
			go func() {
				s.finish(ctx, j)
				<-s.slow
			}()
		default:
			taken = false
		}
	default:
		s.execute(ctx, j)
	}
	if !taken {
		c.jobs.Done()
		c.refuse(f.Number, errBusy)
	}
}

// work finishes a job that has a place, and then those whose turn it is there.
func (s *server) work(ctx context.Context, j job) {
	for more := true; more; {
		s.finish(ctx, j)
		if _, j, more = s.turns.Leave(j.tenant); more {
			s.breath.Breathe()
		}
	}
}

// finish executes a job of which its connection waits for the end.
func (s *server) finish(ctx context.Context, j job) {
	s.execute(ctx, j)
	j.conn.out.flush()
	j.conn.jobs.Done()
}

// prepareCall decodes a call into a job and tells where to execute it. The tenant is
// that of the first record that the manager sends, which it chooses as it likes: turns
// are for a manager that wants to be fair.
func (s *server) prepareCall(j *job, payload []byte) (place, error) {
	call, err := wire.DecodeCall(payload)
	if err != nil {
		return here, err
	}
	j.run = func(ctx context.Context) (appender, error) { return s.core.Call(ctx, call) }
	if len(call.Records) > 0 {
		j.tenant = call.Records[0].ID.Tenant
	}
	switch {
	case s.opts.Slow(call.Action):
		return byItself, nil
	case call.Listed || s.opts.Expensive(call.Action):
		return inTurn, nil
	}
	return here, nil
}

// prepare decodes the message of any other frame and tells where to execute it.
func (s *server) prepare(f wire.Frame) (run runner, at place, err error) {
	switch f.Op {
	case wire.OpResolve:
		r, err := wire.DecodeResolve(f.Payload)
		return func(ctx context.Context) (appender, error) { return s.core.Resolve(ctx, r) }, here, err
	case wire.OpRewrap:
		if w, ok := s.core.(wire.Rewrapper); ok {
			step, err := wire.DecodeRewrap(f.Payload)
			return func(ctx context.Context) (appender, error) { return w.Rewrap(ctx, step) }, inTurn, err
		}
	case wire.OpFacts:
		if w, ok := s.core.(wire.Witness); ok {
			shown, err := wire.DecodeFacts(f.Payload)
			return func(ctx context.Context) (appender, error) { return w.Facts(ctx, shown) }, inTurn, err
		}
	case wire.OpProgress:
		if l, ok := s.core.(wire.Listener); ok {
			p, err := wire.DecodeProgress(f.Payload)
			return func(ctx context.Context) (appender, error) { return p, l.Hear(ctx, p) }, here, err
		}
	case wire.OpTLS:
		if v, ok := s.core.(wire.Voucher); ok {
			key, err := wire.DecodeTLSKey(f.Payload)
			return func(ctx context.Context) (appender, error) { return v.Vouch(ctx, key) }, byItself, err
		}
	case wire.OpSweep:
		sweep, err := wire.DecodeSweep(f.Payload)
		return func(ctx context.Context) (appender, error) { return s.core.Sweep(ctx, sweep) }, inTurn, err
	}
	if len(f.Payload) != 0 {
		return nil, here, fmt.Errorf("operation %d has a payload of %d bytes", f.Op, len(f.Payload))
	}
	switch f.Op {
	case wire.OpInfo:
		return func(ctx context.Context) (appender, error) { return s.core.Info(ctx) }, here, nil
	case wire.OpCheckpoint:
		return func(ctx context.Context) (appender, error) { return s.core.Checkpoint(ctx) }, here, nil
	}
	if m, ok := s.core.(wire.Meter); ok && f.Op == wire.OpStats {
		return func(ctx context.Context) (appender, error) { return m.Stats(ctx) }, here, nil
	}
	return nil, here, fmt.Errorf("operation %d is no request", f.Op)
}

// execute runs a job and puts its answer, or what went wrong, into the outbox.
func (s *server) execute(ctx context.Context, j job) {
	answer, err := s.call(ctx, j.run)
	if err == nil && !j.conn.out.put(j.op, j.number, answer) {
		err = errSize
	}
	if err != nil {
		j.conn.refuse(j.number, err)
	}
}

// call calls run. A panic is a bug of the core that some request has found;
// the others must not suffer from it.
func (s *server) call(ctx context.Context, run runner) (answer appender, err error) {
	defer func() {
		if p := recover(); p != nil {
			n := s.panics.Add(1)
			s.opts.Log.ErrorContext(ctx, "request panicked", "type", fmt.Sprintf("%T", p), "at", where(), "panics", n)
			answer, err = nil, errPanic
		}
	}()
	return run(ctx)
}

// where lists functions and lines on the stack of a panic. A full trace would
// show arguments.
func where() []string {
	pc := make([]uintptr, 24)
	frames := runtime.CallersFrames(pc[:runtime.Callers(3, pc)])
	var lines []string
	for {
		f, more := frames.Next()
		lines = append(lines, fmt.Sprintf("%s:%d", f.Function, f.Line))
		if !more {
			return lines
		}
	}
}

// refuse answers that a message was not executed.
func (c *conn) refuse(number uint64, err error) {
	text := err.Error()
	c.out.put(wire.OpRefused, number, refusal(text[:min(len(text), maxRefusal)]))
}
