package provision

import (
	"net"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
)

// stranger is a connection, and whether it has been closed.
func stranger(t *testing.T) (conn net.Conn, closed func() bool) {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, func() bool {
		b.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := b.Read(make([]byte, 1))
		timeout, ok := err.(net.Error)
		return !ok || !timeout.Timeout()
	}
}

func TestCrowd(t *testing.T) {
	c := newCrowd(3)
	var conns [7]net.Conn
	var closed [7]func() bool
	for i := range conns {
		conns[i], closed[i] = stranger(t)
	}
	for i := range 3 {
		if !c.enter(conns[i]) {
			t.Fatalf("connection %d is kept out", i)
		}
	}
	c.member(conns[0])
	if !c.enter(conns[3]) || closed[0]() || !closed[1]() || closed[2]() {
		t.Error("it is not the oldest stranger who makes room")
	}
	c.leave(conns[1]) // as its goroutine ends
	if !c.enter(conns[4]) || !closed[2]() || closed[3]() {
		t.Error("who was put out is counted twice")
	}
	c.member(conns[2]) // too late
	c.member(conns[3])
	c.member(conns[4])
	if c.enter(conns[5]) {
		t.Error("a member makes room")
	}
	c.leave(conns[0])
	if !c.enter(conns[6]) || c.strangers.Len() != 1 || len(c.places) != 3 {
		t.Errorf("got %d strangers in %d places", c.strangers.Len(), len(c.places))
	}
	for _, conn := range conns {
		c.leave(conn)
	}
	if len(c.places) != 0 || c.strangers.Len() != 0 {
		t.Errorf("left are %d strangers in %d places", c.strangers.Len(), len(c.places))
	}
}

// TestStrangersKeepNobodyOut has more connections that say nothing than a server
// has places, and a client that comes and stays.
func TestStrangersKeepNobodyOut(t *testing.T) {
	a := newRealm(t)
	server := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	server.connections = 16
	address := server.serve(t)
	silent := func() {
		for range 32 {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
		}
	}
	silent()
	cache := newProgram(t, 1, channel.DKeyCache, a.knowing(t), NewHolder(heap))
	began := time.Now()
	cache.join(t, address)
	lost := cache.has(t, a)
	if took := time.Since(began); took > answerTime/2 {
		t.Errorf("the client waits for %v until strangers are given up", took)
	}
	silent()
	if isClosed(lost) || cache.holder.version() == 0 {
		t.Error("the client has lost the DomainKey")
	}
}
