package channel_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
)

// A middle is a man in the middle who ends TLS on both sides, with certificates
// of his own, and relays what is inside.
type middle struct {
	mu    sync.Mutex
	heard map[byte][]byte // what each side has said, by side
}

func attackerTLS(t *testing.T) *tls.Config {
	cert, _, err := rawCertificate()
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, NextProtos: []string{channel.Protocol}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert,
	}
}

// relay stands between the connection that a client has made and the one to the
// server.
func (m *middle) relay(t *testing.T, client, server net.Conn) {
	toClient, toServer := tls.Server(client, attackerTLS(t)), tls.Client(server, attackerTLS(t))
	m.heard = map[byte][]byte{}
	var both sync.WaitGroup
	carry := func(to, from *tls.Conn, side byte) {
		b := make([]byte, 4096)
		for {
			n, err := from.Read(b)
			m.mu.Lock()
			m.heard[side] = append(m.heard[side], b[:n]...)
			m.mu.Unlock()
			if err != nil {
				to.Close()
				return
			}
			if _, err := to.Write(b[:n]); err != nil {
				from.Close()
				return
			}
		}
	}
	both.Go(func() { carry(toServer, toClient, clientSide) })
	both.Go(func() { carry(toClient, toServer, serverSide) })
	both.Wait()
	client.Close()
	server.Close()
}

// through runs both sides with the man in the middle.
func through(t *testing.T, m *middle, client, server func(net.Conn) error) (c, s error) {
	a, am := net.Pipe()
	bm, b := net.Pipe()
	var ends sync.WaitGroup
	ends.Go(func() { m.relay(t, am, bm) })
	ends.Go(func() { s = server(b); b.Close() })
	c = client(a)
	a.Close()
	ends.Wait()
	return c, s
}

func honest(f func(context.Context, net.Conn, *channel.Config) (*channel.Conn, error), cfg *channel.Config) func(net.Conn) error {
	return func(c net.Conn) error {
		conn, err := f(context.Background(), c, cfg)
		if err == nil {
			conn.Close()
		}
		return err
	}
}

// TestManInTheMiddle relays between honest programs. Both refuse. As the server
// judges first, the client would otherwise not be seen to: in the other rows one
// end is a genuine program that judges nothing.
func TestManInTheMiddle(t *testing.T) {
	for name, row := range map[string]struct {
		lenient                byte // side that judges nothing
		wantClient, wantServer error
	}{
		"both judge":              {0, channel.ErrRefused, validate.ErrReportData},
		"the server judges alone": {clientSide, nil, validate.ErrReportData},
		"the client judges alone": {serverSide, validate.ErrReportData, nil},
	} {
		for _, roles := range [][2]channel.Role{{channel.DKeyCache, channel.DKeyServer}, {channel.DKeyServer, channel.DKeyServer}} {
			t.Run(name+"/"+string(roles[0]), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					cc, _ := config(t, w, w.one, roles[0], roles[1])
					sc, _ := config(t, w, w.two, roles[1], roles[0])
					client, server := honest(channel.Client, cc), honest(channel.Server, sc)
					genuine := &rawPeer{side: row.lenient, domain: theDomain, manifest: 1}
					switch row.lenient {
					case clientSide:
						genuine.role, genuine.machine, genuine.collateral = roles[0], load(t, w.one, build{role: roles[0]}), encoded(t, w.one, w.one.Terms(w.now))
						client = genuine.run
					case serverSide:
						genuine.role, genuine.machine, genuine.collateral = roles[1], load(t, w.two, build{role: roles[1]}), encoded(t, w.two, w.two.Terms(w.now))
						server = genuine.run
					}
					gotClient, gotServer := through(t, new(middle), client, server)
					if row.lenient != clientSide && !errors.Is(gotClient, row.wantClient) || gotClient == nil {
						t.Errorf("client: got %v, want %v", gotClient, row.wantClient)
					}
					if row.lenient != serverSide && !errors.Is(gotServer, row.wantServer) || gotServer == nil {
						t.Errorf("server: got %v, want %v", gotServer, row.wantServer)
					}
				})
			})
		}
	}
}

// TestReflection sends a client its own messages back, as they are.
func TestReflection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cfg, _ := config(t, w, w.one, channel.DKeyServer, channel.DKeyServer)
		a, b := net.Pipe()
		go func() {
			c := tls.Server(b, attackerTLS(t))
			io.Copy(c, c)
			b.Close()
		}()
		if _, err := channel.Client(t.Context(), a, cfg); !errors.Is(err, channel.ErrReflected) {
			t.Errorf("got %v, want ErrReflected", err)
		}
	})
}

// TestReflectionToBothSides lets one program, called and calling, prove itself to
// itself: what its client end says goes to its server end and back, over two TLS
// connections. Only the bindings tell, for openings are of the right sides.
func TestReflectionToBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cfg, _ := config(t, w, w.one, channel.DKeyServer, channel.DKeyServer)
		c, s := through(t, new(middle), honest(channel.Client, cfg), honest(channel.Server, cfg))
		if c == nil || !errors.Is(s, validate.ErrReportData) {
			t.Errorf("got %v and %v, want both to refuse", c, s)
		}
	})
}

// TestReflectedEvidence reflects an opening but for the side, and the nonce where
// that is told too, and then the evidence.
func TestReflectedEvidence(t *testing.T) {
	for name, row := range map[string]struct {
		nonce byte // is added to one of the nonce
		want  error
	}{"the own nonce": {0, channel.ErrReflected}, "another nonce": {1, validate.ErrReportData}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			cfg, _ := config(t, w, w.one, channel.DKeyServer, channel.DKeyServer)
			a, b := net.Pipe()
			go func() {
				defer b.Close()
				c := &rawConn{rawPeer: &rawPeer{side: serverSide, manifest: 1}, t: tls.Server(b, attackerTLS(t))}
				all, _, err := c.read(opening)
				if err != nil {
					t.Error(err)
					return
				}
				all[headSize+2] = serverSide
				all[headSize+2+1+2+len(cfg.Role)+32] += row.nonce
				c.t.Write(all)
				if all, _, err = c.read(evidence); err == nil {
					c.t.Write(all)
				}
				io.Copy(io.Discard, b)
			}()
			if _, err := channel.Client(t.Context(), a, cfg); !errors.Is(err, row.want) {
				t.Errorf("%s: got %v, want %v", name, err, row.want)
			}
		})
	}
}

// TestReplay says again to a server what an accepted client has said inside TLS,
// and on the connection.
func TestReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
		// The client's own program is corrupt here: it gives away what it said.
		var said, bytesSent bytes.Buffer
		peer := &rawPeer{
			side: clientSide, role: channel.DKeyCache, domain: theDomain, manifest: 1,
			machine: load(t, w.one, build{role: channel.DKeyCache}), collateral: encoded(t, w.one, w.one.Terms(w.now)),
			frame: func(_ byte, b []byte) []byte { said.Write(b); return b },
		}
		a, b := net.Pipe()
		go peer.run(recorder{a, &bytesSent})
		conn, err := channel.Server(t.Context(), b, sc)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		synctest.Wait()

		again, b := net.Pipe()
		go func() {
			c := tls.Client(again, attackerTLS(t))
			go io.Copy(io.Discard, c)
			c.Write(said.Bytes())
		}()
		if _, err := channel.Server(t.Context(), b, sc); !errors.Is(err, validate.ErrReportData) {
			t.Errorf("messages again: got %v, want ErrReportData", err)
		}
		again.Close()

		again, b = net.Pipe()
		go io.Copy(io.Discard, again)
		go again.Write(bytesSent.Bytes())
		if _, err := channel.Server(t.Context(), b, sc); !errors.Is(err, channel.ErrTLS) {
			t.Errorf("bytes again: got %v, want ErrTLS", err)
		}
		again.Close()
		synctest.Wait()
	})
}

// A recorder is a connection whose outgoing bytes are kept.
type recorder struct {
	net.Conn
	sent *bytes.Buffer
}

func (r recorder) Write(b []byte) (int, error) {
	r.sent.Write(b)
	return r.Conn.Write(b)
}

// TestHalfOpenVerdict lets one of two honest programs refuse. The other has no
// channel, whatever it thinks of the peer.
func TestHalfOpenVerdict(t *testing.T) {
	spoil := map[string]func(*policy){
		"platform": func(p *policy) {
			p.accepts[channel.DKeyServer].Platforms = []validate.Platform{{Name: "none", Serial: "00"}}
		},
		"enclave": func(p *policy) { p.accepts[channel.DKeyServer].Enclaves[0].MinISVSVN = 9 },
		"role":    func(p *policy) { delete(p.accepts, channel.DKeyServer) },
		"root":    func(p *policy) { p.roots = nil },
		"time":    func(p *policy) { p.now = p.now.AddDate(1, 0, 0) },
	}
	for name, f := range spoil {
		for _, side := range []byte{clientSide, serverSide} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				cc, cp := config(t, w, w.one, channel.DKeyServer, channel.DKeyServer)
				sc, sp := config(t, w, w.two, channel.DKeyServer, channel.DKeyServer)
				refuser, other := cp, func(c, s error) (error, error) { return c, s }
				if side == serverSide {
					refuser, other = sp, func(c, s error) (error, error) { return s, c }
				}
				f(refuser)
				c, s := handshake(t.Context(), cc, sc)
				refuses, refused := other(c.err, s.err)
				var r *channel.Refusal
				if !errors.Is(refuses, channel.ErrEvidence) || !errors.As(refused, &r) || r.Reason != channel.ReasonEvidence || c.conn != nil || s.conn != nil {
					t.Errorf("%s refused by side %d: got %v and %v", name, side, c.err, s.err)
				}
			})
		}
	}
}

// TestCutAnywhere cuts the connection between two honest programs after every
// number of writes that one of them makes. The client never has a channel unless
// the server has judged it; and the server none unless the client has accepted.
func TestCutAnywhere(t *testing.T) {
	w := newWorld(t)
	cc, _ := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
	sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
	whole := 0
	for _, side := range []byte{clientSide, serverSide} {
		for after := range 40 {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				client, server := net.Conn(&cutter{Conn: a, left: 1000}), net.Conn(&cutter{Conn: b, left: 1000})
				if side == clientSide {
					client = &cutter{Conn: a, left: after}
				} else {
					server = &cutter{Conn: b, left: after}
				}
				done := make(chan result)
				go func() {
					conn, err := channel.Server(context.Background(), server, sc)
					done <- result{conn, err}
				}()
				conn, err := channel.Client(context.Background(), client, cc)
				s := <-done
				if s.conn != nil && conn == nil {
					t.Errorf("cut of side %d after %d writes: the server has a channel, the client %v", side, after, err)
				}
				for _, c := range []*channel.Conn{conn, s.conn} {
					if c != nil {
						whole++
						c.Close()
					}
				}
			})
		}
	}
	if whole == 0 {
		t.Error("no handshake succeeded: cut later")
	}
}

// A cutter ends a connection when it has made a number of writes.
type cutter struct {
	net.Conn
	left int
}

func (c *cutter) Write(b []byte) (int, error) {
	if c.left--; c.left < 0 {
		c.Conn.Close()
		return 0, io.ErrClosedPipe
	}
	return c.Conn.Write(b)
}
