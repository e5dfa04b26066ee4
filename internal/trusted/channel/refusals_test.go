package channel_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
)

// A scene is an honest program and a peer that is right in everything, until a row
// of the table changes something.
type scene struct {
	t      *testing.T
	w      *world
	cfg    *channel.Config
	policy *policy
	peer   *rawPeer
	plain  func(net.Conn) // in place of the peer
}

// newScene makes the peer a dkeyserver on the second machine.
func newScene(t *testing.T, peerSide byte) *scene {
	w := newWorld(t)
	cfg, p := config(t, w, w.one, channel.DKeyServer, channel.DKeyServer, channel.DKeyCache)
	return &scene{t: t, w: w, cfg: cfg, policy: p, peer: &rawPeer{
		side: peerSide, role: channel.DKeyServer, domain: theDomain, machine: load(t, w.two, build{role: channel.DKeyServer}),
		collateral: encoded(t, w.two, w.two.Terms(w.now)), manifest: 1,
	}}
}

func (s *scene) is(b build) { s.peer.machine, s.peer.role = load(s.t, s.w.two, b), b.role }

// terms makes Intel say something else of the peer's machine.
func (s *scene) terms(change func(*issue.Terms)) {
	terms := s.w.two.Terms(s.w.now)
	change(&terms)
	s.peer.collateral = encoded(s.t, s.w.two, terms)
}

// play runs the honest side against the peer, in a bubble of time.
func (s *scene) play() (honest error, peer error) {
	honestSide := channel.Client
	if s.peer.side == clientSide {
		honestSide = channel.Server
	}
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() {
		if s.plain != nil {
			s.plain(b)
			done <- errStopped
			return
		}
		done <- s.peer.run(b)
	}()
	conn, honest := honestSide(context.Background(), a, s.cfg)
	if honest == nil {
		conn.Close()
	}
	a.Close()
	return honest, <-done
}

// TestRawPeer shows that the peer of the table is accepted when nothing is changed,
// so that each row fails for what it changes.
func TestRawPeer(t *testing.T) {
	for _, side := range []byte{clientSide, serverSide} {
		synctest.Test(t, func(t *testing.T) {
			if honest, peer := newScene(t, side).play(); honest != nil || peer != nil {
				t.Errorf("peer on side %d: got %v, and %v by the peer, want none", side, honest, peer)
			}
		})
	}
}

// at changes one message of the peer.
func at(kind byte, change func(b []byte) []byte) func(*scene) {
	return func(s *scene) {
		s.peer.frame = func(k byte, b []byte) []byte {
			if k == kind {
				return change(b)
			}
			return b
		}
	}
}

// withLength corrects the length of a message.
func withLength(b []byte) []byte {
	binary.BigEndian.PutUint32(b[9:], uint32(len(b)-13))
	return b
}

func bind(change func(*rawBinding)) func(*scene) { return func(s *scene) { s.peer.binding = change } }

func open(change func(*rawOpening)) func(*scene) { return func(s *scene) { s.peer.opening = change } }

func useTLS(change func(*tls.Config)) func(*scene) { return func(s *scene) { s.peer.tls = change } }

func stop(kind byte) func(*scene) { return at(kind, func([]byte) []byte { return nil }) }

const headSize = 13

// refusals are what a peer may do wrong. Each is refused by client and server,
// unless only says for which side of the peer the row is.
var refusals = []struct {
	name   string
	change func(*scene)
	want   error
	only   byte
}{
	// TLS
	{"TLS 1.2", useTLS(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), channel.ErrTLS, 0},
	{"no certificate", useTLS(func(c *tls.Config) { c.Certificates = nil }), channel.ErrTLS, 0},
	{"two certificates", useTLS(func(c *tls.Config) {
		c.Certificates[0].Certificate = append(c.Certificates[0].Certificate, c.Certificates[0].Certificate[0])
	}), channel.ErrTLS, 0},
	{"key on another curve", useTLS(func(c *tls.Config) { c.Certificates = []tls.Certificate{ed25519Certificate()} }), channel.ErrTLS, 0},
	{"another protocol", useTLS(func(c *tls.Config) { c.NextProtos = []string{"h2"} }), channel.ErrTLS, 0},
	{"the local protocol", useTLS(func(c *tls.Config) { c.NextProtos = []string{"ehsm-local/1"} }), channel.ErrTLS, 0},
	{"no protocol", useTLS(func(c *tls.Config) { c.NextProtos = nil }), channel.ErrTLS, 0},
	{"key exchange without ML-KEM", useTLS(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} }), channel.ErrTLS, 0},
	{"server that asks for no certificate", useTLS(func(c *tls.Config) { c.ClientAuth = tls.NoClientCert }), channel.ErrTLS, serverSide},
	{"no TLS", func(s *scene) { s.plain = func(c net.Conn) { c.Write([]byte("GET / HTTP/1.1\r\n\r\n")); c.Close() } }, channel.ErrTLS, 0},
	{"a peer that says nothing", func(s *scene) { s.plain = func(c net.Conn) { readUntilClosed(c) } }, channel.ErrTimeout, 0},

	{"TLS, and nothing more", func(s *scene) {
		s.plain = func(c net.Conn) {
			s.peer.dial(c)
			<-time.After(channel.DefaultTimeout + time.Second)
		}
	}, channel.ErrTimeout, 0},

	// opening
	{"protocol version 2", open(func(m *rawOpening) { m.version = 2 }), channel.ErrProtocol, 0},
	{"protocol version 0", open(func(m *rawOpening) { m.version = 0 }), channel.ErrProtocol, 0},
	{"the own side", open(func(m *rawOpening) { m.side = 3 - m.side }), channel.ErrReflected, 0},
	{"no side", open(func(m *rawOpening) { m.side = 0 }), channel.ErrReflected, 0},
	{"another domain", open(func(m *rawOpening) { m.domain = otherDomain }), channel.ErrPeer, 0},
	{"a role that is not wanted", func(s *scene) { s.is(build{role: channel.Core}) }, channel.ErrPeer, 0},
	{"an unknown role", open(func(m *rawOpening) { m.role = "manager" }), channel.ErrPeer, 0},
	{"no role", open(func(m *rawOpening) { m.role = "" }), channel.ErrPeer, 0},
	{"a long role", open(func(m *rawOpening) { m.role = string(make([]byte, 33)) }), channel.ErrProtocol, 0},
	{"a flag of 2", open(func(m *rawOpening) { m.wants = 2 }), channel.ErrProtocol, 0},
	{"a long target", open(func(m *rawOpening) { m.target = make([]byte, 1025) }), channel.ErrProtocol, 0},
	{"opening cut short", at(opening, func(b []byte) []byte { return withLength(b[:len(b)-1]) }), channel.ErrProtocol, 0},
	{"opening with a byte more", at(opening, func(b []byte) []byte { return withLength(append(b, 0)) }), channel.ErrProtocol, 0},
	{"opening of 4 GiB", at(opening, func(b []byte) []byte { return append(b[:9], 255, 255, 255, 255) }), channel.ErrProtocol, 0},
	{"evidence first", at(opening, func(b []byte) []byte { b[0] = evidence; return b }), channel.ErrProtocol, 0},
	{"data first", at(opening, func(b []byte) []byte { b[0] = data; return b }), channel.ErrProtocol, 0},
	{"challenge first", at(opening, func(b []byte) []byte { b[0] = challenge; return b }), channel.ErrProtocol, 0},
	{"a message of kind 0", at(opening, func(b []byte) []byte { b[0] = 0; return b }), channel.ErrProtocol, 0},
	{"a message of kind 200", at(opening, func(b []byte) []byte { b[0] = 200; return b }), channel.ErrProtocol, 0},

	// what the evidence binds
	{"evidence for another domain", bind(func(b *rawBinding) { b.domain = otherDomain }), validate.ErrReportData, 0},
	{"evidence as another role", bind(func(b *rawBinding) { b.role = "dkeycache" }), validate.ErrReportData, 0},
	{"exporter of another role", bind(func(b *rawBinding) { b.exporterLabel = swap(b.exporterLabel, "dkeyserver", "dkeycache") }), validate.ErrReportData, 0},
	{"exporter of the own side", bind(func(b *rawBinding) {
		if l := swap(b.exporterLabel, "client", "server"); l != b.exporterLabel {
			b.exporterLabel = l
		} else {
			b.exporterLabel = swap(b.exporterLabel, " server", " client")
		}
	}), validate.ErrReportData, 0},
	{"exporter of an open channel", bind(func(b *rawBinding) { b.exporterLabel = swap(b.exporterLabel, "evidence", "again") }), validate.ErrReportData, 0},
	{"exporter of another connection", bind(func(b *rawBinding) { b.exporterReplay = make([]byte, 32) }), validate.ErrReportData, 0},
	{"exporter with another nonce", bind(func(b *rawBinding) { b.exporterNonce = make([]byte, 32) }), validate.ErrReportData, 0},
	{"a stale nonce", bind(func(b *rawBinding) { b.nonce = make([]byte, 32) }), validate.ErrReportData, 0},
	{"the key of another certificate", bind(func(b *rawBinding) { b.spki = [32]byte{1} }), validate.ErrReportData, 0},
	{"another HPKE key", bind(func(b *rawBinding) { b.hpke = [32]byte{1} }), validate.ErrReportData, 0},
	{"evidence for version 2", bind(func(b *rawBinding) { b.version = 2 }), validate.ErrReportData, 0},
	{"evidence of another label", bind(func(b *rawBinding) { b.label = "ehsm/reportdata-channel/v2\x00" }), validate.ErrReportData, 0},
	{"a GenerateQuote answer", func(s *scene) { s.peer.reportData = native }, validate.ErrReportData, 0},
	{"a GetEvidence answer", func(s *scene) { s.peer.reportData = ofUse(attest.UseInstance) }, validate.ErrReportData, 0},
	{"evidence of an acceptance run", func(s *scene) { s.peer.reportData = ofUse(attest.UseAcceptance) }, validate.ErrReportData, 0},
	{"evidence for a local channel", func(s *scene) { s.peer.reportData = ofUse(attest.UseLocal) }, validate.ErrReportData, 0},
	{"evidence for nothing", func(s *scene) { s.peer.reportData = func(rawBinding) (d [64]byte) { return d } }, validate.ErrReportData, 0},

	// what proves it
	{"a debug build", func(s *scene) { s.is(build{role: channel.DKeyServer, debug: true}) }, validate.ErrDebug, 0},
	{"a build of a stranger", func(s *scene) { s.is(build{role: channel.DKeyServer, seed: strangerSeed}) }, validate.ErrEnclave, 0},
	{"a build that is too old", func(s *scene) { s.is(build{role: channel.DKeyServer, svn: 1}) }, validate.ErrSVN, 0},
	{"a program of another role", func(s *scene) { s.peer.machine = load(s.t, s.w.two, build{role: channel.DKeyCache}) }, validate.ErrEnclave, 0},
	{"a program of another role that a careless policy admits", func(s *scene) {
		m := load(s.t, s.w.two, build{role: channel.Core})
		s.peer.machine = m
		s.policy.accepts[channel.DKeyServer].Enclaves = []validate.Enclave{{Name: "careless", MREnclave: m.Identity().Measurement}}
	}, channel.ErrEvidence, 0},
	{"a role without a policy", func(s *scene) { delete(s.policy.accepts, channel.DKeyServer) }, channel.ErrEvidence, 0},
	{"an empty policy", func(s *scene) { s.policy.accepts[channel.DKeyServer] = &validate.Policy{AllowSim: true} }, validate.ErrEmptyPolicy, 0},
	{"an unlisted platform", func(s *scene) {
		p := s.policy.accepts[channel.DKeyServer]
		p.Platforms = p.Platforms[:1]
	}, validate.ErrPlatform, 0},
	{"a simulated platform", func(s *scene) { s.policy.accepts[channel.DKeyServer].AllowSim = false }, verify.ErrSimulated, 0},
	{"a platform of another root", func(s *scene) {
		s.peer.machine, s.peer.collateral = load(s.t, s.w.foreign, build{role: channel.DKeyServer}), encoded(s.t, s.w.foreign, s.w.foreign.Terms(s.w.now))
	}, verify.ErrUnknownRoot, 0},
	{"no roots", func(s *scene) { s.policy.roots = nil }, verify.ErrNoRoot, 0},
	{"a forged quote", func(s *scene) {
		s.peer.quote = func(d [64]byte) []byte {
			e, _ := s.peer.machine.Evidence(context.Background(), d)
			e.Quote[quote.SignedSize+4] ^= 1 // the first byte of the signature
			return e.Quote
		}
	}, verify.ErrQuoteSignature, 0},
	{"REPORTDATA written into an old quote", func(s *scene) {
		s.peer.quote = func(d [64]byte) []byte {
			e, _ := s.peer.machine.Evidence(context.Background(), [64]byte{})
			copy(e.Quote[quote.SignedSize-64:], d[:])
			return e.Quote
		}
	}, verify.ErrQuoteSignature, 0},
	{"a quote of a TDX guest", at(evidence, func(b []byte) []byte { b[headSize+1216+4+1] = byte(attest.TDXQuote4); return b }), channel.ErrEvidence, 0},
	{"no quote", func(s *scene) { s.peer.quote = func([64]byte) []byte { return nil } }, channel.ErrEvidence, 0},

	// what is known of the machine
	{"OutOfDate TCB", func(s *scene) { s.terms(func(t *issue.Terms) { t.Status = verify.OutOfDate }) }, validate.ErrStatus, 0},
	{"OutOfDate quoting enclave", func(s *scene) { s.terms(func(t *issue.Terms) { t.QEStatus = verify.OutOfDate }) }, validate.ErrStatus, 0},
	{"SWHardeningNeeded", func(s *scene) {
		s.terms(func(t *issue.Terms) { t.Status, t.Advisories = verify.SWHardeningNeeded, []string{"INTEL-SA-00615"} })
	}, validate.ErrStatus, 0},
	{"revoked TCB", func(s *scene) { s.terms(func(t *issue.Terms) { t.Status = verify.Revoked }) }, verify.ErrPlatformRevoked, 0},
	{"revoked PCK", func(s *scene) {
		serial, _ := new(big.Int).SetString(pckSerial(s), 16)
		s.terms(func(t *issue.Terms) { t.RevokedPCKs = []*big.Int{serial} })
	}, verify.ErrPCKRevoked, 0},
	{"expired collateral", func(s *scene) {
		s.terms(func(t *issue.Terms) { t.Issued, t.Next = s.w.now.AddDate(0, -2, 0), s.w.now.AddDate(0, -1, 0) })
	}, verify.ErrCRLExpired, 0},
	{"collateral of the future", func(s *scene) { s.terms(func(t *issue.Terms) { t.Issued = s.w.now.Add(time.Hour) }) }, verify.ErrCRLNotYetValid, 0},
	{"collateral before a TCB recovery", func(s *scene) { s.policy.accepts[channel.DKeyServer].MinTCBEvaluation = 17 }, verify.ErrEvaluationNumber, 0},
	{"collateral of another fleet", func(s *scene) { s.peer.collateral = encoded(s.t, s.w.foreign, s.w.foreign.Terms(s.w.now)) }, channel.ErrEvidence, 0},
	{"no collateral", func(s *scene) { s.peer.collateral = nil }, verify.ErrBundle, 0},
	{"collateral that nobody asked for", func(s *scene) {
		s.cfg.PeerCollateral = func(context.Context, verify.Query) (verify.Collateral, error) {
			return s.w.two.Issue(s.w.two.Terms(s.w.now))
		}
	}, channel.ErrProtocol, 0},
	{"collateral that the verifier lacks", func(s *scene) {
		s.peer.collateral = nil
		s.cfg.PeerCollateral = func(context.Context, verify.Query) (verify.Collateral, error) {
			return verify.Collateral{}, errors.New("not known here")
		}
	}, channel.ErrEvidence, 0},

	// evidence message and acceptance
	{"an HPKE key that is none", func(s *scene) { s.peer.hpkeKey = bytes.Repeat([]byte{255}, 1216) }, channel.ErrProtocol, 0},
	{"an HPKE key of a man in the middle", func(s *scene) { s.peer.hpkeKey = bytes.Repeat([]byte{0}, 1216) }, validate.ErrReportData, 0},
	{"evidence cut short", at(evidence, func(b []byte) []byte { return withLength(b[:len(b)-1]) }), channel.ErrProtocol, 0},
	{"evidence with a byte more", at(evidence, func(b []byte) []byte { return withLength(append(b, 0)) }), channel.ErrProtocol, 0},
	{"evidence of 4 GiB", at(evidence, func(b []byte) []byte { return append(b[:9], 255, 255, 255, 255) }), channel.ErrProtocol, 0},
	{"collateral over the limit", func(s *scene) { s.peer.collateral = make([]byte, channel.MaxCollateral+1) }, channel.ErrProtocol, 0},
	{"opening twice", at(evidence, func(b []byte) []byte { b[0] = opening; return b }), channel.ErrProtocol, 0},
	{"accepted without evidence", at(evidence, func(b []byte) []byte { return append([]byte{accepted}, b[1:9+4+32]...) }), channel.ErrProtocol, 0},
	{"a manifest that goes back", func(s *scene) {
		s.peer.frame = func(k byte, b []byte) []byte {
			if k == evidence {
				binary.BigEndian.PutUint64(b[1:], 0)
			}
			return b
		}
	}, channel.ErrProtocol, 0},
	{"an acceptance of zeros", func(s *scene) { s.peer.mac = func(_, _ [32]byte) (m [32]byte) { return m } }, channel.ErrVerdict, 0},
	{"the own acceptance", func(s *scene) { s.peer.mac = func(_, peers [32]byte) [32]byte { return peers } }, channel.ErrVerdict, 0},
	{"an acceptance with a bit flipped", func(s *scene) {
		s.peer.mac = func(own, _ [32]byte) [32]byte { own[31] ^= 1; return own }
	}, channel.ErrVerdict, 0},
	{"an acceptance cut short", at(accepted, func(b []byte) []byte { return withLength(b[:len(b)-1]) }), channel.ErrProtocol, 0},
	{"an acceptance with a byte more", at(accepted, func(b []byte) []byte { return withLength(append(b, 0)) }), channel.ErrProtocol, 0},
	{"data in place of an acceptance", at(accepted, func(b []byte) []byte { b[0] = data; return b }), channel.ErrProtocol, 0},
	{"a refusal in place of an opening", at(opening, refusing), channel.ErrRefused, 0},
	{"a refusal in place of evidence", at(evidence, refusing), channel.ErrRefused, 0},
	{"a refusal in place of an acceptance", at(accepted, refusing), channel.ErrRefused, 0},
	{"a refusal for no reason", at(accepted, func([]byte) []byte { return []byte{refused, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0} }), channel.ErrProtocol, 0},
	{"a refusal without a reason", at(accepted, func([]byte) []byte { return []byte{refused, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0} }), channel.ErrProtocol, 0},

	// stopping
	{"stop before the opening", stop(opening), channel.ErrTimeout, 0},
	{"stop before the evidence", stop(evidence), channel.ErrTimeout, 0},
	{"stop before the acceptance", stop(accepted), channel.ErrTimeout, 0},
	{"stop within the opening", at(opening, func(b []byte) []byte { return b[:20] }), channel.ErrTimeout, 0},
	{"stop within the evidence", at(evidence, func(b []byte) []byte { return b[:len(b)/2] }), channel.ErrTimeout, 0},
	{"stop within the acceptance", at(accepted, func(b []byte) []byte { return b[:20] }), channel.ErrTimeout, 0},
}

func refusing([]byte) []byte { return []byte{refused, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 3} }

func swap(s, old, with string) string {
	return string(bytes.ReplaceAll([]byte(s), []byte(old), []byte(with)))
}

func pckSerial(s *scene) string {
	e, err := s.peer.machine.Evidence(context.Background(), [64]byte{})
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := verify.Verify(e.Quote, must(verify.DecodeCollateral(s.peer.collateral)), verify.Options{
		Roots: s.policy.roots, Now: s.w.now, AllowSim: true,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return r.Platform.Serial
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func readUntilClosed(c net.Conn) {
	b := make([]byte, 4096)
	for {
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}

// leastRefusals is how many named refusals there must be, each for both sides.
const leastRefusals = 80

func TestRefusals(t *testing.T) {
	names := map[string]bool{}
	for _, row := range refusals {
		names[row.name] = true
		for _, side := range []byte{clientSide, serverSide} {
			if row.only != 0 && row.only != side {
				continue
			}
			t.Run(fmt.Sprintf("%s/peer %d", row.name, side), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newScene(t, side)
					row.change(s)
					began := time.Now()
					honest, peer := s.play()
					if !errors.Is(honest, row.want) {
						t.Errorf("got %v, want %v", honest, row.want)
					}
					if peer == nil {
						t.Error("the peer was not told, or not cut off")
					}
					if took := time.Since(began); took > channel.DefaultTimeout+2*time.Second {
						t.Errorf("it took %v", took)
					}
				})
			})
		}
	}
	if len(names) < leastRefusals || len(names) != len(refusals) {
		t.Errorf("got %d names for %d refusals, want one for each and at least %d", len(names), len(refusals), leastRefusals)
	}
}
