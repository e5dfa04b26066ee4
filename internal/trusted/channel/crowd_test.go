package channel_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
)

// TestThousandConnections lets a thousand strangers connect and stop, each at one
// of the steps, while a server serves those that go on.
func TestThousandConnections(t *testing.T) {
	w := newWorld(t)
	cc, _ := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
	sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
	sc.Limit = &channel.Limit{Handshakes: 200, Workers: 2}
	var serving sync.WaitGroup
	var mu sync.Mutex
	served, crowded := 0, 0
	accept := func() net.Conn {
		a, b := net.Pipe()
		serving.Go(func() {
			conn, err := channel.Server(context.Background(), b, sc)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				served++
				serving.Go(func() { conn.Receive(context.Background()); conn.Close() })
			} else if errors.Is(err, channel.ErrCrowded) {
				crowded++
			}
		})
		return a
	}
	strangers := make([]net.Conn, 1000)
	var connecting sync.WaitGroup
	for n := range strangers {
		c := accept()
		strangers[n] = c
		connecting.Go(func() {
			switch n % 10 {
			case 0: // TLS, and no more
				tls.Client(c, attackerTLS(t)).Handshake()
			case 1: // half a ClientHello
				c.Write([]byte{22, 3, 1, 1, 0, 1, 0})
			case 2: // an opening, and no more
				peer := &rawPeer{side: clientSide, role: channel.DKeyCache, domain: theDomain, manifest: 1}
				if raw, err := peer.dial(c); err == nil {
					raw.sendOpening()
				}
			}
		})
	}
	connecting.Wait()
	const wanted = 20
	for n := range wanted {
		conn, err := channel.Client(t.Context(), accept(), cc)
		if err != nil {
			t.Fatalf("client %d: %v", n, err)
		}
		conn.Close()
	}
	for _, c := range strangers {
		c.Close()
	}
	serving.Wait()
	if served != wanted || crowded < 700 {
		t.Errorf("served %d and turned away %d, want %d and 700 at least", served, crowded, wanted)
	}
}

func TestOldestMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cc, _ := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
		sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
		sc.Limit = &channel.Limit{Handshakes: 1}
		a, b := net.Pipe()
		done := make(chan error)
		go func() {
			_, err := channel.Server(context.Background(), b, sc)
			done <- err
		}()
		synctest.Wait()
		join(t, cc, sc)
		if err := <-done; !errors.Is(err, channel.ErrCrowded) {
			t.Errorf("the older handshake: got %v, want ErrCrowded", err)
		}
		a.Close()
	})
}

// TestMemoryOfHandshakes announces long evidence on several connections.
func TestMemoryOfHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, clientSide)
		s.cfg.Limit = &channel.Limit{Memory: 1 << 20}
		s.peer.frame = func(kind byte, b []byte) []byte {
			if kind != evidence {
				return b
			}
			return []byte{evidence, 0, 0, 0, 0, 0, 0, 0, 1, 0, 12, 0, 0} // 768 KiB, of which nothing comes
		}
		first, second := make(chan error), make(chan error)
		play := func(to chan error) {
			a, b := net.Pipe()
			peer := *s.peer
			go peer.run(b)
			_, err := channel.Server(context.Background(), a, s.cfg)
			to <- err
		}
		go play(first)
		synctest.Wait()
		go play(second)
		if err := <-second; !errors.Is(err, channel.ErrCrowded) {
			t.Errorf("the second: got %v, want ErrCrowded", err)
		}
		if err := <-first; !errors.Is(err, channel.ErrTimeout) {
			t.Errorf("the first: got %v, want ErrTimeout", err)
		}
		// All of it has been given back.
		honest := newScene(t, clientSide)
		honest.cfg.Limit = s.cfg.Limit
		if err, _ := honest.play(); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// TestWorkers lets evidence take long: another handshake waits for its turn, not
// longer than it may.
func TestWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cc, _ := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
		sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
		sc.Limit = &channel.Limit{Workers: 1}
		sc.Timeout = time.Minute
		gate := &slow{Attester: sc.Attester, gate: make(chan struct{})}
		sc.Attester = gate
		one, two := make(chan result), make(chan result)
		serve := func(to chan result, cfg channel.Config) {
			a, b := net.Pipe()
			go func() {
				conn, err := channel.Server(context.Background(), b, &cfg)
				to <- result{conn, err}
			}()
			mine := *cc
			mine.Timeout = time.Hour
			if conn, err := channel.Client(context.Background(), a, &mine); err == nil {
				conn.Receive(context.Background())
				conn.Close()
			}
			a.Close()
		}
		long := *sc
		long.Timeout = time.Hour
		go serve(one, long)
		synctest.Wait()
		go serve(two, *sc)
		if r := <-two; !errors.Is(r.err, channel.ErrTimeout) {
			t.Errorf("the second: got %v, want ErrTimeout", r.err)
		}
		close(gate.gate)
		if r := <-one; r.err != nil {
			t.Errorf("the first: %v", r.err)
		} else {
			r.conn.Close()
		}
	})
}

// TestContextEnds ends the handshake with its context, whose cause is the error.
func TestContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cc, _ := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
		a, b := net.Pipe()
		go io.Copy(io.Discard, b)
		why := errors.New("the program stops")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { synctest.Wait(); cancel(why) }()
		if _, err := channel.Client(ctx, a, cc); !errors.Is(err, why) {
			t.Errorf("got %v, want %v", err, why)
		}
		b.Close()
	})
}

// TestTimeoutIsTold has a peer that goes on listening told why it is cut off.
func TestTimeoutIsTold(t *testing.T) {
	for _, side := range []byte{clientSide, serverSide} {
		synctest.Test(t, func(t *testing.T) {
			s := newScene(t, side)
			var told []byte
			s.plain = func(raw net.Conn) {
				c, err := s.peer.dial(raw)
				if err != nil {
					t.Error(err)
				}
				if side == serverSide {
					c.readOpening()
				}
				_, told, _ = c.read(refused)
				raw.Close()
			}
			if err, _ := s.play(); !errors.Is(err, channel.ErrTimeout) {
				t.Errorf("got %v, want ErrTimeout", err)
			}
			if len(told) != 1 || channel.Reason(told[0]) != channel.ReasonBusy {
				t.Errorf("the peer was told %x, want %d", told, channel.ReasonBusy)
			}
		})
	}
}
