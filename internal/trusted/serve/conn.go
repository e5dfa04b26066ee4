package serve

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

const readBuffer = 64 << 10 // bytes; what one read can take in

// A conn is one connection of a manager.
type conn struct {
	nc      net.Conn
	r       *bufio.Reader
	out     *outbox
	jobs    sync.WaitGroup // frames that are executed beside the reading
	timeout time.Duration  // of a frame
}

func newConn(nc net.Conn, o Options) *conn {
	return &conn{
		nc: nc, r: bufio.NewReaderSize(nc, readBuffer), timeout: o.FrameTimeout,
		out: newOutbox(nc, o.WriteTimeout),
	}
}

// serve reads frames and executes them, or has them executed in turn, until
// the peer is done or ctx ends. Answers leave in one write once there is
// nothing more to execute, so that a peer with many open calls costs few
// system calls.
func (s *server) serve(ctx context.Context, c *conn) error {
	work := context.WithoutCancel(ctx)
	for {
		f, err := c.next(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		s.dispatch(work, c, f)
	}
}

// next reads a frame. Before it waits for one, it sends the answers that are
// ready. There is no limit to the time between frames, but one to the time
// that a frame takes to arrive.
func (c *conn) next(ctx context.Context) (wire.Frame, error) {
	if c.whole() {
		return wire.ReadFrame(c.r)
	}
	c.out.flush()
	if _, err := c.r.Peek(1); err != nil {
		return wire.Frame{}, err
	}
	if c.whole() {
		return wire.ReadFrame(c.r)
	}
	// Each change of the deadline may undo the one by which stopReading wakes
	// this goroutine, so ctx is looked at after it.
	c.nc.SetReadDeadline(time.Now().Add(c.timeout))
	if err := ctx.Err(); err != nil {
		return wire.Frame{}, err
	}
	f, err := wire.ReadFrame(c.r)
	c.nc.SetReadDeadline(time.Time{})
	return f, cmp.Or(ctx.Err(), err)
}

// whole tells whether a frame has arrived to its end, so that reading it does
// not wait. The header is read whatever length it states.
func (c *conn) whole() bool {
	const header = 4 + 1 + 8
	if c.r.Buffered() < header {
		return false
	}
	length, _ := c.r.Peek(4) // they are buffered
	return int64(c.r.Buffered())-4 >= int64(binary.BigEndian.Uint32(length))
}
