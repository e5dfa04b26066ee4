package provision

import (
	"container/list"
	"net"
	"sync"
)

// A crowd bounds the connections of a server. Those whose peers are not attested
// yet make room for newer ones, the oldest first, so that strangers who connect and
// stop keep nobody out.
type crowd struct {
	most int

	mu        sync.Mutex
	places    map[net.Conn]*list.Element // nil: its peer is attested
	strangers list.List                  // of connections, the oldest first
}

func newCrowd(most int) *crowd {
	return &crowd{most: most, places: map[net.Conn]*list.Element{}}
}

// enter gives a connection a place. It is false if members have all of them.
func (c *crowd) enter(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.places) >= c.most {
		oldest := c.strangers.Front()
		if oldest == nil {
			return false
		}
		c.remove(oldest.Value.(net.Conn))
		oldest.Value.(net.Conn).Close()
	}
	c.places[conn] = c.strangers.PushBack(conn)
	return true
}

// member says that the peer of a connection is attested.
func (c *crowd) member(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.places[conn]; at != nil {
		c.strangers.Remove(at)
		c.places[conn] = nil
	}
}

// leave gives up the place of a connection, if it still has one.
func (c *crowd) leave(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(conn)
}

func (c *crowd) remove(conn net.Conn) {
	if at := c.places[conn]; at != nil {
		c.strangers.Remove(at)
	}
	delete(c.places, conn)
}
