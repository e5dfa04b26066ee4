package e2e

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A link carries TCP connections to an address, well or badly.
type link struct {
	to string
	ln net.Listener

	mu      sync.Mutex
	conns   map[net.Conn]bool
	refuses bool
	delay   time.Duration // of each piece of data, one way
	silent  chan struct{} // not nil: nothing gets through until it is closed
}

func newLink(t testing.TB, to string) *link {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{to: to, ln: ln, conns: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { l.serve(near) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		l.mend()
		l.cut()
		wg.Wait()
	})
	return l
}

func (l *link) addr() string { return l.ln.Addr().String() }

// mend makes the link a good one again.
func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuses, l.delay = false, 0
	if l.silent != nil {
		close(l.silent)
		l.silent = nil
	}
}

// cut ends all connections, and those to come.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuses = true
	for c := range l.conns {
		c.Close()
	}
}

// slow delays what is sent from now on, in each direction.
func (l *link) slow(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// mute keeps back what is sent from now on, as a network does that loses all.
func (l *link) mute() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent == nil {
		l.silent = make(chan struct{})
	}
}

func (l *link) state() (delay time.Duration, silent chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.delay, l.silent
}

// hold notes a connection, unless the link refuses it.
func (l *link) hold(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuses {
		c.Close()
		return false
	}
	l.conns[c] = true
	return true
}

func (l *link) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	c.Close()
}

func (l *link) serve(near net.Conn) {
	if !l.hold(near) {
		return
	}
	defer l.drop(near)
	far, err := net.Dial("tcp", l.to)
	if err != nil || !l.hold(far) {
		return
	}
	defer l.drop(far)
	var wg sync.WaitGroup
	wg.Go(func() { l.carry(far, near) })
	wg.Go(func() { l.carry(near, far) })
	wg.Wait()
}

// A parcel is data with the time at which it arrives.
type parcel struct {
	data []byte
	at   time.Time
}

// carry copies until an end, and then ends the other one too.
func (l *link) carry(to, from net.Conn) {
	parcels := make(chan parcel, 4096)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer to.Close()
		for p := range parcels {
			<-time.After(time.Until(p.at))
			if _, silent := l.state(); silent != nil {
				<-silent
			}
			if _, err := to.Write(p.data); err != nil {
				from.Close()
				for range parcels { // until the reader notices
				}
				return
			}
		}
	})
	for {
		buf := make([]byte, 16<<10)
		n, err := from.Read(buf)
		if n > 0 {
			delay, _ := l.state()
			parcels <- parcel{buf[:n], time.Now().Add(delay)}
		}
		if err != nil {
			if err != io.EOF {
				to.Close()
			}
			close(parcels)
			break
		}
	}
	wg.Wait()
}
