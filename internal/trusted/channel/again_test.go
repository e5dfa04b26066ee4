package channel_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

func TestReattest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cc, cp := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
		sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
		client, server := join(t, cc, sc)
		before := client.Peer()
		later := w.now.Add(time.Hour)
		cp.set(func(p *policy) { p.now = later })
		if err := client.Reattest(t.Context()); err != nil {
			t.Fatal(err)
		}
		after := client.Peer()
		if !after.Attested.Equal(later) || string(after.HPKEKey) != string(before.HPKEKey) || after.Identity != before.Identity {
			t.Errorf("Peer after Reattest: got %+v", after)
		}
		if err := server.Reattest(t.Context()); err != nil {
			t.Errorf("Reattest by the server: %v", err)
		}
		go client.Send(t.Context(), []byte("x"))
		if m, err := server.Receive(t.Context()); err != nil || string(m) != "x" {
			t.Errorf("Receive after Reattest: got %q, %v", m, err)
		}
	})
}

// TestReattestRefusals removes a peer while its channel is open.
func TestReattestRefusals(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*policy)
		want   error
	}{
		"platform removed": {func(p *policy) { p.accepts[channel.DKeyServer].Platforms = p.accepts[channel.DKeyServer].Platforms[:1] }, validate.ErrPlatform},
		"role removed":     {func(p *policy) { delete(p.accepts, channel.DKeyServer) }, channel.ErrEvidence},
		"new minimum SVN":  {func(p *policy) { p.accepts[channel.DKeyServer].Enclaves[0].MinISVSVN = 3 }, validate.ErrSVN},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			cc, cp := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
			sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
			client, server := join(t, cc, sc)
			if err := server.Send(t.Context(), []byte("already under way")); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			cp.set(row.change)
			if err := client.Reattest(t.Context()); !errors.Is(err, row.want) || !errors.Is(err, channel.ErrEvidence) {
				t.Errorf("%s: Reattest: got %v, want %v", name, err, row.want)
			}
			if m, err := client.Receive(t.Context()); !errors.Is(err, row.want) {
				t.Errorf("%s: Receive afterwards: got %q, %v", name, m, err)
			}
			if err := client.Send(t.Context(), []byte("x")); !errors.Is(err, row.want) {
				t.Errorf("%s: Send afterwards: got %v", name, err)
			}
			var r *channel.Refusal
			if _, err := server.Receive(t.Context()); !errors.As(err, &r) || r.Reason != channel.ReasonEvidence {
				t.Errorf("%s: the peer: got %v, want a refusal", name, err)
			}
		})
	}
}

// TestNewCollateral serves collateral in which the peer's PCK has been revoked.
func TestNewCollateral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cc, _ := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
		sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
		status := verify.UpToDate
		cc.PeerCollateral = func(_ context.Context, q verify.Query) (verify.Collateral, error) {
			if q.FMSPC != w.two.Terms(w.now).Platform.FMSPC || q.CA != verify.CAPlatform {
				t.Errorf("PeerCollateral: asked for %+v", q)
			}
			terms := w.two.Terms(w.now)
			terms.Status = status
			return w.two.Issue(terms)
		}
		client, server := join(t, cc, sc)
		changed := make(chan struct{})
		done := make(chan error)
		go func() { done <- client.KeepAttested(t.Context(), 100*time.Hour, changed) }()
		changed <- struct{}{}
		synctest.Wait()
		status = verify.OutOfDate
		changed <- struct{}{}
		if err := <-done; !errors.Is(err, validate.ErrStatus) {
			t.Errorf("KeepAttested: got %v, want ErrStatus", err)
		}
		if _, err := server.Receive(t.Context()); !errors.Is(err, channel.ErrRefused) {
			t.Errorf("the peer: got %v, want ErrRefused", err)
		}
	})
}

func TestKeepAttested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cc, cp := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
		sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
		client, _ := join(t, cc, sc)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		changed := make(chan struct{})
		close(changed) // once
		go func() { done <- client.KeepAttested(ctx, time.Hour, changed) }()
		for n := range 3 {
			cp.set(func(p *policy) { p.now = p.now.Add(time.Minute) })
			<-time.After(time.Hour)
			synctest.Wait()
			if got := client.Peer().Attested; !got.Equal(cp.Now()) {
				t.Errorf("after interval %d: attested %v, want %v", n, got, cp.Now())
			}
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("KeepAttested: got %v, want Canceled", err)
		}
	})
}

func TestExpiry(t *testing.T) {
	for name, row := range map[string]struct {
		maxAge, later time.Duration
		want          error
	}{
		"young enough":           {0, 24 * time.Hour, nil},
		"older than a day":       {0, 24*time.Hour + 1, channel.ErrExpired},
		"older than the age":     {time.Minute, time.Minute + 1, channel.ErrExpired},
		"collateral in force":    {1000 * time.Hour, 30 * 24 * time.Hour, nil},
		"collateral has expired": {1000 * time.Hour, 30*24*time.Hour + 1, channel.ErrExpired},
	} {
		for _, try := range []string{"Send", "Receive", "Receive blocked", "Seal", "Open", "Reattest"} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				cc, cp := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
				sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
				cc.MaxAge = row.maxAge
				client, server := join(t, cc, sc)
				sealed, err := server.Seal("x", sample())
				if err != nil {
					t.Fatal(err)
				}
				pass := func() { cp.set(func(p *policy) { p.now = w.now.Add(row.later) }) }
				if try != "Receive blocked" {
					pass()
					go server.Send(t.Context(), []byte("x"))
				}
				switch try {
				case "Send":
					go server.Receive(t.Context())
					err = client.Send(t.Context(), []byte("x"))
				case "Receive":
					synctest.Wait()
					_, err = client.Receive(t.Context())
				case "Receive blocked":
					done := make(chan error)
					go func() { _, err := client.Receive(t.Context()); done <- err }()
					synctest.Wait()
					pass()
					go server.Send(t.Context(), []byte("x"))
					err = <-done
				case "Seal":
					_, err = client.Seal("x", sample())
				case "Open":
					_, err = client.Open("x", sealed)
				case "Reattest":
					if row.want != nil {
						err = client.Reattest(t.Context())
					}
				}
				if !errors.Is(err, row.want) {
					t.Errorf("%s, %s: got %v, want %v", name, try, err, row.want)
				}
			})
		}
	}
}

// openRefusals are what an accepted peer may do wrong. The honest side attests it
// again if asks.
var openRefusals = []struct {
	name string
	asks bool
	do   func(s *scene, c *rawConn) error
	want error
}{
	{"an empty message", false, sending(data, nil), channel.ErrProtocol},
	{"a message over the limit", false, func(_ *scene, c *rawConn) error {
		_, err := c.t.Write([]byte{data, 0, 0, 0, 0, 0, 0, 0, 1, 0, 16, 0, 1})
		return err
	}, channel.ErrProtocol},
	{"a message of 4 GiB", false, func(_ *scene, c *rawConn) error {
		_, err := c.t.Write([]byte{data, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255})
		return err
	}, channel.ErrProtocol},
	{"an opening", false, sending(opening, make([]byte, 40)), channel.ErrProtocol},
	{"evidence of a handshake", false, sending(evidence, make([]byte, 40)), channel.ErrProtocol},
	{"an acceptance", false, sending(accepted, make([]byte, 32)), channel.ErrProtocol},
	{"an unknown message", false, sending(9, nil), channel.ErrProtocol},
	{"a goodbye with text", false, sending(goodbye, []byte("x")), channel.ErrProtocol},
	{"a manifest that goes back", false, func(_ *scene, c *rawConn) error {
		c.manifest = 0
		_, err := c.send(data, []byte("x"))
		return err
	}, channel.ErrProtocol},
	{"no goodbye", false, func(_ *scene, c *rawConn) error { return c.t.Close() }, channel.ErrTruncated},
	{"half a message", false, func(_ *scene, c *rawConn) error {
		c.t.Write([]byte{data, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 'x'})
		return c.t.Close()
	}, channel.ErrTruncated},
	{"a refusal", false, sending(refused, []byte{3}), channel.ErrRefused},
	{"a short challenge", false, sending(challenge, make([]byte, 31)), channel.ErrProtocol},
	{"a long challenge", false, sending(challenge, make([]byte, 33)), channel.ErrProtocol},
	{"two challenges", false, func(s *scene, c *rawConn) error {
		s.cfg.Attester.(*slow).gate = make(chan struct{})
		b := []byte{challenge, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 32}
		b = append(b, make([]byte, 32)...)
		_, err := c.t.Write(append(b, b...))
		return err
	}, channel.ErrProtocol},
	{"proof that nobody asked for", false, func(_ *scene, c *rawConn) error {
		_, err := c.send(proof, c.encodedProof(c.prove(c.bound("again", make([]byte, 32), c.key.PublicKey().Bytes()))))
		return err
	}, channel.ErrProtocol},

	{"no proof", true, func(*scene, *rawConn) error { return nil }, channel.ErrTimeout},
	{"a proof of nothing", true, sending(proof, nil), channel.ErrProtocol},
	{"a proof twice", true, func(s *scene, c *rawConn) error {
		if err := proving("again", nil)(s, c); err != nil {
			return err
		}
		return sending(proof, c.encodedProof(nil))(s, c)
	}, channel.ErrProtocol},
	{"proof for another nonce", true, proving("again", func(b *rawBinding) { b.nonce = make([]byte, 32) }), validate.ErrReportData},
	{"proof with the exporter of the handshake", true, proving("evidence", nil), validate.ErrReportData},
	{"proof for another domain", true, proving("again", func(b *rawBinding) { b.domain = otherDomain }), validate.ErrReportData},
	{"proof of another HPKE key", true, proving("again", func(b *rawBinding) { b.hpke = [32]byte{} }), validate.ErrReportData},
	{"proof for another connection", true, proving("again", func(b *rawBinding) { b.exporterReplay = make([]byte, 32) }), validate.ErrReportData},
	{"proof of another program", true, func(s *scene, c *rawConn) error {
		c.machine = load(s.t, s.w.two, build{role: channel.DKeyServer, svn: 3})
		return proving("again", nil)(s, c)
	}, channel.ErrChanged},
	{"proof of another machine", true, func(s *scene, c *rawConn) error {
		c.machine = load(s.t, s.w.one, build{role: channel.DKeyServer})
		return proving("again", nil)(s, c)
	}, channel.ErrChanged},
	{"proof of a debug build", true, func(s *scene, c *rawConn) error {
		c.machine = load(s.t, s.w.two, build{role: channel.DKeyServer, debug: true})
		return proving("again", nil)(s, c)
	}, validate.ErrDebug},
	{"proof with OutOfDate TCB", true, func(s *scene, c *rawConn) error {
		s.terms(func(t *issue.Terms) { t.Status = verify.OutOfDate })
		return proving("again", nil)(s, c)
	}, validate.ErrStatus},
}

func sending(kind byte, payload []byte) func(*scene, *rawConn) error {
	return func(_ *scene, c *rawConn) error {
		_, err := c.send(kind, payload)
		return err
	}
}

// proving answers the challenge that has come.
func proving(purpose string, change func(*rawBinding)) func(*scene, *rawConn) error {
	return func(s *scene, c *rawConn) error {
		c.binding = change
		quote := c.prove(c.bound(purpose, c.peerNonce, c.key.PublicKey().Bytes()))
		_, err := c.send(proof, c.encodedProof(quote))
		return err
	}
}

// A slow attester waits for its gate.
type slow struct {
	attest.Attester
	gate chan struct{}
}

func (s *slow) Evidence(ctx context.Context, d [64]byte) (attest.Evidence, error) {
	if s.gate != nil {
		<-s.gate
	}
	return s.Attester.Evidence(ctx, d)
}

func sample() secret.Bytes { return secret.Copy([]byte("a key")) }

func TestOpenRefusals(t *testing.T) {
	for _, row := range openRefusals {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playOpen(t, row.asks, row.do, row.want) })
		})
	}
	// The table's peer is right where it is not told to be wrong.
	synctest.Test(t, func(t *testing.T) {
		playOpen(t, true, func(s *scene, c *rawConn) error {
			if err := proving("again", nil)(s, c); err != nil {
				return err
			}
			return sending(goodbye, nil)(s, c)
		}, io.EOF)
	})
}

func playOpen(t *testing.T, asks bool, do func(*scene, *rawConn) error, want error) {
	s := newScene(t, serverSide)
	attester := &slow{Attester: s.cfg.Attester}
	s.cfg.Attester = attester
	a, b := net.Pipe()
	s.peer.then = func(c *rawConn) error {
		if asks {
			_, nonce, err := c.read(challenge)
			if err != nil {
				return err
			}
			c.peerNonce = nonce
		}
		go func() {
			head := make([]byte, 13)
			for {
				if _, err := io.ReadFull(c.t, head); err != nil {
					return
				}
				io.CopyN(io.Discard, c.t, int64(binary.BigEndian.Uint32(head[9:])))
			}
		}()
		if err := do(s, c); err != nil {
			return err
		}
		<-t.Context().Done() // as the peer's connection, not the test's
		return nil
	}
	go s.peer.run(b)
	conn, err := channel.Client(t.Context(), a, s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if asks {
		err = conn.Reattest(t.Context())
	}
	if err == nil {
		_, err = conn.Receive(t.Context())
	}
	if !errors.Is(err, want) || errors.Is(err, io.EOF) != errors.Is(want, io.EOF) {
		t.Errorf("got %v, want %v", err, want)
	}
	if err := conn.Send(t.Context(), []byte("x")); !errors.Is(err, want) {
		t.Errorf("Send afterwards: got %v, want %v", err, want)
	}
	if attester.gate != nil {
		close(attester.gate)
	}
	conn.Close()
}

// TestEverythingAtOnce sends, receives and attests from both ends at the same
// time, and ends in the middle of it.
func TestEverythingAtOnce(t *testing.T) {
	w := newWorld(t)
	cc, cp := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
	sc, sp := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
	var mu sync.Mutex
	var seen uint64
	sc.ManifestSeen = func(_ channel.Role, v uint64) {
		mu.Lock()
		defer mu.Unlock()
		seen = v
	}
	client, server := join(t, cc, sc)
	var all sync.WaitGroup
	const messages = 50
	for _, c := range []*channel.Conn{client, server} {
		for range 2 {
			all.Go(func() {
				for range messages {
					if err := c.Send(t.Context(), make([]byte, 1000)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Go(func() {
			for range 2 * messages {
				if _, err := c.Receive(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for range 3 {
				if err := c.Reattest(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() { cp.manifest.Add(1); sp.manifest.Add(1) })
	all.Wait()
	go client.Send(t.Context(), []byte("with the new manifest"))
	if _, err := server.Receive(t.Context()); err != nil {
		t.Error(err)
	}
	mu.Lock()
	if seen != 2 || server.Peer().Manifest != 2 {
		t.Errorf("manifest of the client: seen %d, Peer has %d, want 2", seen, server.Peer().Manifest)
	}
	mu.Unlock()
	for _, c := range []*channel.Conn{client, server} {
		all.Go(func() { c.Reattest(t.Context()) })
		all.Go(func() { c.Send(t.Context(), make([]byte, channel.MaxMessage)) })
		all.Go(func() { c.Close() })
	}
	all.Wait()
}
