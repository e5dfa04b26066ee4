package serve

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// maxUnsent is how many bytes of answers may wait for a peer that does not
// read. Whoever wants to add more waits until they are gone.
const maxUnsent = 4 << 20

const keptBuffer = 256 << 10 // bytes; larger buffers go to the garbage collector

// An appender is a message that can be encoded.
type appender interface{ Append(dst []byte) []byte }

// An outbox collects the answers of a connection and sends them. Any number of
// goroutines may use it; one of them at a time writes for all.
type outbox struct {
	nc      net.Conn
	timeout time.Duration

	mu      sync.Mutex
	changed sync.Cond // bytes have been sent, or the connection is broken
	buf     []byte    // answers to send
	spare   []byte    // the buffer before
	writing bool
	broken  error // why no more is sent
}

func newOutbox(nc net.Conn, timeout time.Duration) *outbox {
	o := &outbox{nc: nc, timeout: timeout}
	o.changed.L = &o.mu
	return o
}

// put adds an answer, to be sent with the next flush. It reports false if the
// answer is over the limit of a frame, and adds nothing then.
func (o *outbox) put(op wire.Op, number uint64, answer appender) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.buf) > maxUnsent && o.broken == nil {
		if !o.writing { // nobody has sent what the limit is made of
			o.write()
			continue
		}
		o.changed.Wait()
	}
	if o.broken != nil {
		return true
	}
	at := len(o.buf)
	o.buf = wire.AppendFrame(o.buf, op, number, answer.Append)
	if len(o.buf)-at > wire.MaxFrame {
		o.buf = o.buf[:at]
		return false
	}
	return true
}

// flush sends all answers there are, unless another goroutine is doing so.
func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.writing {
		o.write()
	}
}

// write sends until nothing is left. The caller must hold o.mu and have found
// that nobody else writes.
func (o *outbox) write() {
	o.writing = true
	for len(o.buf) > 0 && o.broken == nil {
		out := o.buf
		o.buf, o.spare = o.spare[:0], nil
		o.mu.Unlock()
		o.nc.SetWriteDeadline(time.Now().Add(o.timeout))
		_, err := o.nc.Write(out)
		o.mu.Lock()
		if cap(out) <= keptBuffer {
			o.spare = out
		}
		if err != nil {
			o.broken, o.buf = fmt.Errorf("write answers: %w", err), nil
			o.nc.Close() // the reader ends with it
		}
		o.changed.Broadcast()
	}
	o.writing = false
}

// close sends what is left and closes the connection. It returns the error of
// a connection that broke at writing.
func (o *outbox) close() error {
	o.flush()
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.writing {
		o.changed.Wait()
	}
	o.nc.Close()
	return o.broken
}
