package channel_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
)

// Messages, as docs/channel.md numbers them.
const (
	opening, evidence, accepted, refused = 1, 2, 3, 4
	data, challenge, proof, goodbye      = 5, 6, 7, 8
)

const (
	clientSide, serverSide = 1, 2
)

var errStopped = errors.New("the peer stopped here")

// A rawPeer is a second implementation of the protocol, written from its document.
// It checks nothing, and can do any step wrong. What it is not told to do wrong is
// right, as TestRawPeer proves.
type rawPeer struct {
	side    byte
	role    channel.Role
	machine *sim.Machine
	domain  [32]byte

	tls        func(*tls.Config)
	opening    func(*rawOpening)
	binding    func(*rawBinding)                  // what the evidence binds
	reportData func(b rawBinding) [64]byte        // in place of that of a binding
	quote      func(reportData [64]byte) []byte   // in place of the machine's
	hpkeKey    []byte                             // in place of a new one
	collateral []byte                             // as encoded
	mac        func(own, peers [32]byte) [32]byte // what is sent as acceptance
	frame      func(kind byte, b []byte) []byte   // each message, as it is sent; nil stops
	manifest   uint64
	then       func(c *rawConn) error // when the handshake has ended
}

type rawOpening struct {
	version uint16
	side    byte
	role    string
	domain  [32]byte
	nonce   [32]byte
	wants   byte
	target  []byte
}

func (m rawOpening) encode() []byte {
	b := binary.BigEndian.AppendUint16(nil, m.version)
	b = append(b, m.side)
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.role)))
	b = append(b, m.role...)
	b = append(b, m.domain[:]...)
	b = append(b, m.nonce[:]...)
	b = append(b, m.wants)
	return append(lengthOf(b, m.target), m.target...)
}

func lengthOf(b, of []byte) []byte { return binary.BigEndian.AppendUint32(b, uint32(len(of))) }

type rawBinding struct {
	label          string
	domain         [32]byte
	role           string
	exporter       []byte
	nonce          []byte
	spki, hpke     [32]byte
	version        uint16
	exporterLabel  string
	exporterNonce  []byte
	exporterReplay []byte // of another connection
}

func (b rawBinding) reportData() [64]byte {
	var all []byte
	for _, f := range [][]byte{
		[]byte(b.label), b.domain[:], []byte(b.role), b.exporter, b.nonce, b.spki[:], b.hpke[:],
		binary.BigEndian.AppendUint16(nil, b.version),
	} {
		all = append(lengthOf(all, f), f...)
	}
	return sha512.Sum512(all)
}

// A rawConn is a connection of a rawPeer.
type rawConn struct {
	*rawPeer
	t          *tls.Conn
	spki       [32]byte
	key        hpke.PrivateKey
	own, peers []byte // opening messages
	ownEv, pEv []byte // evidence messages
	peerNonce  []byte
	nonce      []byte
}

func rawCertificate() (tls.Certificate, [32]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, [32]byte{}, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, [32]byte{}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, sha256.Sum256(spki), err
}

// ed25519Certificate is one with another kind of key.
func ed25519Certificate() tls.Certificate {
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	t := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour)}
	der, _ := x509.CreateCertificate(rand.Reader, t, t, pub, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// dial makes the TLS connection.
func (p *rawPeer) dial(conn net.Conn) (*rawConn, error) {
	cert, spki, err := rawCertificate()
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		Certificates: []tls.Certificate{cert}, NextProtos: []string{"ehsm-attest/1"}, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert,
	}
	if p.tls != nil {
		p.tls(c)
	}
	raw := &rawConn{rawPeer: p, spki: spki}
	if p.side == clientSide {
		raw.t = tls.Client(conn, c)
	} else {
		raw.t = tls.Server(conn, c)
	}
	return raw, raw.t.Handshake()
}

// run plays the peer until the other end says goodbye, as one does that accepted it.
func (p *rawPeer) run(conn net.Conn) error {
	defer conn.Close()
	c, err := p.dial(conn)
	if err != nil {
		return err
	}
	steps := []func() error{c.sendOpening, c.readOpening, c.sendEvidence, c.readEvidence, c.readAccepted, c.sendAccepted}
	if p.side == serverSide {
		steps = []func() error{c.readOpening, c.sendOpening, c.readEvidence, c.sendEvidence, c.sendAccepted, c.readAccepted}
	}
	for i, step := range steps {
		if err := step(); err != nil {
			io.Copy(io.Discard, conn) // what refuses it must not hang
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	if p.then != nil {
		return p.then(c)
	}
	_, _, err = c.read(goodbye)
	return err
}

func (c *rawConn) send(kind byte, payload []byte) ([]byte, error) {
	b := binary.BigEndian.AppendUint64([]byte{kind}, c.manifest)
	b = append(lengthOf(b, payload), payload...)
	if c.frame != nil {
		if b = c.frame(kind, b); b == nil {
			return nil, errStopped
		}
	}
	_, err := c.t.Write(b)
	return b, err
}

func (c *rawConn) read(kind byte) (all []byte, payload []byte, err error) {
	head := make([]byte, 13)
	if _, err := io.ReadFull(c.t, head); err != nil {
		return nil, nil, err
	}
	payload = make([]byte, binary.BigEndian.Uint32(head[9:]))
	if _, err := io.ReadFull(c.t, payload); err != nil {
		return nil, nil, err
	}
	if head[0] != kind {
		return nil, nil, fmt.Errorf("got message %d with %x, want %d", head[0], payload, kind)
	}
	return append(head, payload...), payload, nil
}

func (c *rawConn) sendOpening() (err error) {
	m := rawOpening{version: 1, side: c.side, role: string(c.role), domain: c.domain, wants: 1}
	rand.Read(m.nonce[:])
	c.nonce = m.nonce[:]
	if c.rawPeer.opening != nil {
		c.rawPeer.opening(&m)
	}
	c.own, err = c.send(opening, m.encode())
	return err
}

func (c *rawConn) readOpening() (err error) {
	var payload []byte
	if c.peers, payload, err = c.read(opening); err != nil {
		return err
	}
	after := 2 + 1 + 2 + int(binary.BigEndian.Uint16(payload[3:])) + 32
	c.peerNonce = payload[after : after+32]
	return nil
}

func (c *rawConn) name() string {
	return map[byte]string{clientSide: "client", serverSide: "server"}[c.side]
}

// bound is the REPORTDATA of the peer's evidence.
func (c *rawConn) bound(purpose string, nonce, hpkeKey []byte) [64]byte {
	b := rawBinding{
		label: "ehsm/reportdata-channel/v1\x00", domain: c.domain, role: string(c.role), nonce: nonce, spki: c.spki,
		hpke: sha256.Sum256(hpkeKey), version: 1, exporterNonce: nonce,
		exporterLabel: "EXPORTER-ehsm-attest/1 " + purpose + " " + c.name() + " " + string(c.role),
	}
	if c.binding != nil {
		c.binding(&b)
	}
	if b.exporter = b.exporterReplay; b.exporter == nil {
		state := c.t.ConnectionState()
		b.exporter, _ = state.ExportKeyingMaterial(b.exporterLabel, b.exporterNonce, 32)
	}
	if c.reportData != nil {
		return c.reportData(b)
	}
	return b.reportData()
}

func (c *rawConn) prove(reportData [64]byte) []byte {
	if c.quote != nil {
		return c.quote(reportData)
	}
	e, err := c.machine.Evidence(context.Background(), reportData)
	if err != nil {
		panic(err)
	}
	return e.Quote
}

// encodedProof is evidence and collateral.
func (c *rawConn) encodedProof(quote []byte) []byte {
	e := append([]byte{1, 1}, append(lengthOf(nil, quote), quote...)...)
	b := append(lengthOf(nil, e), e...)
	return append(lengthOf(b, c.collateral), c.collateral...)
}

func (c *rawConn) sendEvidence() (err error) {
	if c.key, err = hpke.MLKEM768X25519().GenerateKey(); err != nil {
		return err
	}
	sent := c.key.PublicKey().Bytes()
	if c.hpkeKey != nil {
		sent = c.hpkeKey
	}
	quote := c.prove(c.bound("evidence", c.peerNonce, c.key.PublicKey().Bytes()))
	c.ownEv, err = c.send(evidence, append(append([]byte(nil), sent...), c.encodedProof(quote)...))
	return err
}

func (c *rawConn) readEvidence() (err error) {
	c.pEv, _, err = c.read(evidence)
	return err
}

// acceptance is that of a side.
func (c *rawConn) acceptance(side byte) [32]byte {
	parts := [][]byte{c.own, c.peers, c.ownEv, c.pEv}
	if c.side == serverSide {
		parts = [][]byte{c.peers, c.own, c.pEv, c.ownEv}
	}
	all := []byte("ehsm/channel-transcript/v1\x00")
	for _, p := range parts {
		all = append(lengthOf(all, p), p...)
	}
	transcript := sha256.Sum256(all)
	state := c.t.ConnectionState()
	name := map[byte]string{clientSide: "client", serverSide: "server"}[side]
	key, _ := state.ExportKeyingMaterial("EXPORTER-ehsm-attest/1 accepted "+name, transcript[:], 32)
	m := hmac.New(sha256.New, key)
	m.Write([]byte("ehsm/channel-accepted/v1\x00"))
	m.Write([]byte{side})
	m.Write(transcript[:])
	return [32]byte(m.Sum(nil))
}

func (c *rawConn) sendAccepted() error {
	own := c.acceptance(c.side)
	if c.mac != nil {
		own = c.mac(own, c.acceptance(3-c.side))
	}
	_, err := c.send(accepted, own[:])
	return err
}

func (c *rawConn) readAccepted() error {
	_, got, err := c.read(accepted)
	if err == nil && [32]byte(got) != c.acceptance(3-c.side) {
		err = errors.New("wrong acceptance")
	}
	return err
}

// native and instance are evidence that a core gives to its clients.
func native(b rawBinding) [64]byte { return attest.NativeReportData(b.nonce, b.domain, b.hpke[:]) }

func ofUse(use attest.Use) func(rawBinding) [64]byte {
	return func(b rawBinding) [64]byte {
		return attest.ReportData(use, b.domain, []byte(b.role), b.exporter, b.nonce, b.spki[:], b.hpke[:], []byte{0, 1})
	}
}
