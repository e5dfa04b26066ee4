package provision

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// shortWait is the least time between heartbeats of a client in a hurry.
	shortWait = 50 * time.Millisecond
	// wantTime is for how long a client is in a hurry after it was told of a version
	// that it lacks: the number may come from a record that nobody has sealed.
	wantTime = 10 * time.Second
)

// A haste is what has a client ask before its next heartbeat. The zero value is
// usable.
type haste struct {
	once    sync.Once
	signal  chan struct{}
	version atomic.Uint32 // that is wanted
	until   atomic.Int64  // Unix nanoseconds
}

func (h *haste) hurried() chan struct{} {
	h.once.Do(func() { h.signal = make(chan struct{}, 1) })
	return h.signal
}

// wants reports whether a version is wanted that is later than the one held.
func (h *haste) wants(held uint32) bool {
	return h.version.Load() > held && time.Now().UnixNano() < h.until.Load()
}

// Want has the client fetch a version of the DomainKey as soon as its server has
// it, and the server look for it. It does not block, and may be called for each
// request that meets such a version.
func (c *Client) Want(version uint32) {
	c.haste.version.Store(version)
	c.haste.until.Store(time.Now().Add(wantTime).UnixNano())
	c.Hurry()
}

// Hurry has the client send its next heartbeat now. It does not block.
func (c *Client) Hurry() {
	select {
	case c.haste.hurried() <- struct{}{}:
	default: // it will
	}
}
