package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// TestSlowClients: whoever holds a connection without using it loses it, and
// nobody else notices.
func TestSlowClients(t *testing.T) {
	eachTarget(t, func(t *testing.T, g *target) {
		c := g.enroll(t)
		slow := map[string]slowClient{
			"says nothing":   {"", "", 15 * time.Second},
			"header trickle": {"POST /ehsm?Action=ListKey HTTP/1.1\r\nHost: x\r\nX: ", "x", 15 * time.Second},
			"header stops":   {"POST /ehsm?Action=ListKey HTTP/1.1\r\nHost: x\r\n", "", 15 * time.Second},
			"body trickle":   {"POST /ehsm?Action=ListKey HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", " ", 35 * time.Second},
			"body stops":     {"POST /ehsm?Action=ListKey HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{", "", 35 * time.Second},
			"chunk trickle":  {"POST /ehsm?Action=ListKey HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n", 35 * time.Second},
		}
		var clients sync.WaitGroup
		for name, row := range slow {
			w := g.dial(t)
			clients.Go(func() {
				if err := w.trickle(row); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		conn, err := net.Dial("tcp", g.address()) // not even a TLS handshake
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		clients.Go(func() {
			if err := (&wire{conn, bufio.NewReader(conn)}).trickle(slow["says nothing"]); err != nil {
				t.Errorf("half open: %v", err)
			}
		})
		for range 50 { // the others
			start := time.Now()
			want(t, c.call(t, "ListKey", nil), 200, textSuccessful)
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("a request took %s", d)
			}
			<-time.After(100 * time.Millisecond)
		}
		clients.Wait()
	})
}

// A slowClient writes first, then drop again and again, until its time is up.
type slowClient struct {
	first, drop string
	within      time.Duration
}

// trickle expects the end of the connection, or an error reply, in time.
func (w *wire) trickle(s slowClient) error {
	start := time.Now()
	w.SetDeadline(start.Add(s.within))
	done := make(chan struct{})
	defer close(done)
	go func() {
		io.WriteString(w, s.first)
		for s.drop != "" {
			select {
			case <-done:
				return
			case <-time.After(200 * time.Millisecond):
				io.WriteString(w, s.drop)
			}
		}
	}()
	resp, body, err := w.response()
	switch {
	case errors.Is(err, errClosed):
		return nil
	case err != nil:
		return fmt.Errorf("still connected after %s: %w", time.Since(start), err)
	case resp.StatusCode >= 400:
		return nil
	}
	if r, err := parseReply(resp, body); err != nil || r.Code != 400 {
		return fmt.Errorf("got %.200s, %w", body, err)
	}
	return nil
}

// TestManyConnections holds thousands of idle connections. It runs alone, as
// thousands of handshakes at once keep a machine busy.
func TestManyConnections(t *testing.T) {
	for _, kind := range targets() {
		t.Run(kind, func(t *testing.T) { testManyConnections(t, newTarget(t, kind)) })
	}
}

func testManyConnections(t *testing.T, g *target) {
	c := g.enroll(t)
	start, _ := g.memory()
	const n = 2000
	conns := make([]*wire, n)
	defer func() {
		for _, w := range conns {
			if w != nil {
				w.Close()
			}
		}
	}()
	inParallel(t, n, func(ctx context.Context, i int) (reply, error) {
		d := tls.Dialer{Config: g.tls}
		conn, err := d.DialContext(ctx, "tcp", g.address())
		if err != nil {
			return reply{}, err
		}
		conns[i] = &wire{conn, bufio.NewReaderSize(conn, 16)}
		io.WriteString(conn, "GET /ehsm?Action=GetVersion HTTP/1.1\r\nHost: x\r\n\r\n")
		return conns[i].reply()
	})
	for range 20 {
		want(t, c.call(t, "ListKey", nil), 200, textSuccessful)
	}
	now, _ := g.memory()
	t.Logf("%d idle connections take %d KiB each", n, (now-start)>>10/n)
	g.bounded(t, 400<<20)
	for _, i := range []int{0, n / 2, n - 1} { // they still work
		io.WriteString(conns[i], "GET /ehsm?Action=GetVersion HTTP/1.1\r\nHost: x\r\n\r\n")
		if r, err := conns[i].reply(); err != nil || r.Code != 200 {
			t.Errorf("connection %d: got %s, %v", i, r.body, err)
		}
	}
}

// TestTooManyConnections opens more connections than the service takes (4096).
// Those beyond are closed at once, and when the others have gone all is well.
func TestTooManyConnections(t *testing.T) {
	g := newTarget(t, dev)
	c := g.enroll(t)
	const n = 4500
	conns := make([]net.Conn, 0, n)
	for range n {
		conn, err := net.Dial("tcp", g.address())
		if err != nil {
			break // the backlog is full: no harm done to the service
		}
		conns = append(conns, conn)
	}
	closed := 0
	for _, conn := range conns {
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a connection that says nothing is still open: %v", err)
		}
		closed++
		conn.Close()
	}
	t.Logf("%d connections were closed", closed)
	want(t, c.call(t, "ListKey", nil), 200, textSuccessful)
	g.bounded(t, 400<<20)
}
