package session

import (
	"context"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// refusalTime is how long a peer has to take the message that it is refused, and
// to close the connection.
const refusalTime = time.Second

// A handshake is one run of the state machine of docs/channel.md.
type handshake struct {
	side   Side
	cfg    *Config
	method Method
	st     *stream
	ticket *ticket

	frames   [4][]byte // as sent: opening of client, server; evidence of client, server
	own      openingMessage
	theirs   openingMessage
	key      hpke.PrivateKey
	manifest uint64 // highest that the peer named
	peer     Peer
	accepted bool // the own verdict
}

// Run makes a channel of raw, which it closes when it fails. ctx bounds the
// handshake only. Errors: those of the package but ErrClosed, ErrExpired,
// ErrChanged and ErrOpen.
func Run(ctx context.Context, raw net.Conn, s Side, m Method, cfg *Config) (*Conn, error) {
	if err := cfg.check(); err != nil {
		raw.Close()
		return nil, err
	}
	ctx, stop := context.WithTimeoutCause(ctx, cfg.timeout(), ErrTimeout)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	interrupt := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer interrupt()
	h := &handshake{side: s, cfg: cfg, method: m, ticket: cfg.Limit.enter(cancel)}
	defer h.ticket.leave()
	err := h.run(ctx, raw)
	if err == nil && !interrupt() {
		err = context.Cause(ctx)
	}
	if err == nil {
		return newConn(h), nil
	}
	err = because(ctx, err)
	h.refuse(raw, err)
	return nil, fmt.Errorf("channel as %v: %w", s, err)
}

// because puts the reason for an interruption before what was interrupted.
func because(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case cause != nil && !errors.Is(err, cause):
		return fmt.Errorf("%w: %w", cause, err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	return err
}

// refuse tells the peer, as far as it listens, and closes the connection. What the
// peer still sends is thrown away until it closes too: otherwise it might never
// come to read, or the network drop the message.
func (h *handshake) refuse(raw net.Conn, err error) {
	defer raw.Close()
	if h.st == nil || errors.Is(err, ErrRefused) || errors.Is(err, ErrTruncated) {
		return
	}
	raw.SetDeadline(time.Now().Add(refusalTime))
	var drain sync.WaitGroup
	drain.Go(func() { io.Copy(io.Discard, raw) })
	h.write(refused, []byte{byte(reasonOf(err))}) // best effort
	drain.Wait()
}

// run makes the steps in their order. Both orders judge the peer before they
// accept it, and have both acceptances at the end.
func (h *handshake) run(ctx context.Context, raw net.Conn) (err error) {
	if h.st, err = open(ctx, raw, h.side, h.method.Kind()); err != nil {
		return err
	}
	steps := []func(context.Context) error{
		h.sendOpening, h.receiveOpening, h.sendEvidence, h.receiveEvidence, h.receiveAccepted, h.sendAccepted,
	}
	if h.side == Server {
		steps = []func(context.Context) error{
			h.receiveOpening, h.sendOpening, h.receiveEvidence, h.sendEvidence, h.sendAccepted, h.receiveAccepted,
		}
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (h *handshake) write(k kind, payload []byte) ([]byte, error) {
	b := frame{k, h.cfg.Policy.Manifest(), payload}.append(nil)
	if _, err := h.st.Write(b); err != nil {
		return nil, fmt.Errorf("send %v: %w", k, truncated(err))
	}
	return b, nil
}

// read returns the payload of the wanted message, and the message as it came.
func (h *handshake) read(want kind) (payload, raw []byte, err error) {
	f, err := readFrame(h.st, h.ticket.reserve, want, refused)
	if err != nil {
		return nil, nil, fmt.Errorf("receive %v: %w", want, err)
	}
	if f.kind == refused { // check: refusal-ends
		return nil, nil, refusal(f.payload)
	}
	if f.manifest < h.manifest { // check: manifest-back
		return nil, nil, fmt.Errorf("%w: manifest %d after %d", ErrProtocol, f.manifest, h.manifest)
	}
	h.manifest = f.manifest
	return f.payload, f.append(nil), nil
}

// slot is where a message of a side has its place in frames.
func slot(k kind, s Side) int { return int(k-opening)*2 + int(s-Client) }

func (h *handshake) sendOpening(context.Context) (err error) {
	h.own = openingMessage{side: h.side, role: h.cfg.Role, domain: h.cfg.Domain, wants: h.method.Kind().Wants}
	rand.Read(h.own.nonce[:]) // never fails
	if h.own.target, err = h.method.Target(); err != nil {
		return fmt.Errorf("target of reports: %w", err)
	}
	h.frames[slot(opening, h.side)], err = h.write(opening, h.own.append(nil))
	return err
}

func (h *handshake) receiveOpening(context.Context) error {
	payload, raw, err := h.read(opening)
	if err != nil {
		return err
	}
	h.frames[slot(opening, h.side.other())] = raw
	h.theirs, err = decodeOpening(payload)
	switch m := &h.theirs; {
	case err != nil:
		return err
	case m.side != h.side.other(): // check: side
		return fmt.Errorf("%w: it calls itself %v too", ErrReflected, m.side)
	case m.nonce == h.own.nonce: // check: own-nonce
		return fmt.Errorf("%w: it has the own nonce", ErrReflected)
	case m.domain != h.cfg.Domain: // check: domain-named
		return fmt.Errorf("%w: domain %x", ErrPeer, m.domain)
	case !slices.Contains(h.cfg.PeerRoles, m.role): // check: role-wanted
		return fmt.Errorf("%w: role %q", ErrPeer, m.role)
	}
	return nil
}

// opening is the digest of both opening messages.
func (h *handshake) opening() [32]byte {
	return digest(openingLabel, h.frames[slot(opening, Client)], h.frames[slot(opening, Server)])
}

// transcript is the digest of all that both sides have accepted.
func (h *handshake) transcript() [32]byte { return digest(transcriptLabel, h.frames[:]...) }

// binding is what evidence of a side stands for.
func (h *handshake) binding(s Side, hpkeKey []byte) (b binding, err error) {
	prover, verifier, spki := h.theirs.role, h.own.nonce, h.st.peer
	if s == h.side {
		prover, verifier, spki = h.own.role, h.theirs.nonce, h.st.own
	}
	b = binding{
		domain: h.cfg.Domain, role: prover, nonce: verifier, spki: spki,
		hpkeKey: sha256.Sum256(hpkeKey), opening: h.opening(),
	}
	b.exporter, err = h.st.export(label(h.method.Kind(), forEvidence, s, prover), verifier[:])
	return b, err
}

func (h *handshake) sendEvidence(ctx context.Context) (err error) {
	if h.key, err = hpke.MLKEM768X25519().GenerateKey(); err != nil {
		return fmt.Errorf("make an HPKE key: %w", err)
	}
	var m evidenceMessage
	copy(m.hpkeKey[:], h.key.PublicKey().Bytes())
	b, err := h.binding(h.side, m.hpkeKey[:])
	if err != nil {
		return err
	}
	if m.proofMessage, err = prove(ctx, h.method, h.ticket, h.theirs, b.reportData(h.method.Kind())); err != nil {
		return err
	}
	h.frames[slot(evidence, h.side)], err = h.write(evidence, m.append(nil))
	return err
}

// prove makes evidence for a peer, with collateral if it wants that.
func prove(ctx context.Context, method Method, t *ticket, peer openingMessage, reportData [64]byte) (m proofMessage, err error) {
	err = t.work(ctx, func() error {
		m.evidence, err = method.Prove(ctx, peer.target, reportData)
		return err
	})
	if err == nil && peer.wants {
		m.collateral, err = method.Endorse(ctx)
	}
	switch {
	case err != nil:
		return m, fmt.Errorf("make evidence: %w", err)
	case len(m.evidence) > maxEvidence || len(m.collateral) > MaxCollateral:
		return m, fmt.Errorf("%w: evidence of %d bytes, collateral of %d", ErrTooLong, len(m.evidence), len(m.collateral))
	}
	return m, nil
}

func (h *handshake) receiveEvidence(ctx context.Context) error {
	payload, raw, err := h.read(evidence)
	if err != nil {
		return err
	}
	h.frames[slot(evidence, h.side.other())] = raw
	m, err := decodeEvidence(payload)
	if err != nil {
		return err
	}
	if _, err := hpke.MLKEM768X25519().NewPublicKey(m.hpkeKey[:]); err != nil { // check: hpke-key
		return fmt.Errorf("%w: HPKE key: %w", ErrProtocol, err)
	}
	b, err := h.binding(h.side.other(), m.hpkeKey[:])
	if err != nil {
		return err
	}
	h.peer, err = judge(ctx, h.cfg, h.method, h.ticket, h.theirs.role, m.proofMessage, b.reportData(h.method.Kind()))
	if err != nil {
		return err
	}
	h.peer.HPKEKey, h.accepted = m.hpkeKey[:], true
	return nil
}

// judge decides about the evidence of a peer in a role.
func judge(ctx context.Context, cfg *Config, method Method, t *ticket, role Role, m proofMessage, reportData [64]byte) (Peer, error) {
	c := Claim{Role: role, Evidence: m.evidence, Collateral: m.collateral, ReportData: reportData, Policy: cfg.Policy.Accepts(role), Now: cfg.Policy.Now()}
	if c.Policy == nil { // check: role-policy
		return Peer{}, fmt.Errorf("%w: no policy for role %q", ErrEvidence, role)
	}
	var v Verdict
	err := t.work(ctx, func() (err error) {
		v, err = method.Judge(ctx, c)
		return err
	})
	if err != nil { // check: evidence-judged
		return Peer{}, fmt.Errorf("%w: %w", ErrEvidence, err)
	}
	if v.Identity.Product != role.Product() { // check: role-product
		return Peer{}, fmt.Errorf("%w: product %d is not a %s", ErrEvidence, v.Identity.Product, role)
	}
	return Peer{
		Role: role, Identity: v.Identity, Decision: v.Decision, Kind: v.Kind, Machine: v.Machine, Quote: v.Quote, Attested: c.Now, Until: v.Until,
	}, nil
}

// acceptance is what a side sends that has accepted the other.
func (h *handshake) acceptance(s Side) ([32]byte, error) {
	transcript := h.transcript()
	key, err := h.st.export(label(h.method.Kind(), forAccepted, s, ""), transcript[:])
	defer clear(key[:])
	return acceptance(key, s, transcript), err
}

func (h *handshake) sendAccepted(context.Context) error {
	if !h.accepted { // check+: judged-first: the order of the steps sees to it
		return fmt.Errorf("%w: no verdict", ErrEvidence)
	}
	mac, err := h.acceptance(h.side)
	if err != nil {
		return err
	}
	_, err = h.write(accepted, mac[:])
	return err
}

func (h *handshake) receiveAccepted(context.Context) error {
	payload, _, err := h.read(accepted)
	if err != nil {
		return err
	}
	got, err := decodeFixed(accepted, payload)
	if err != nil {
		return err
	}
	want, err := h.acceptance(h.side.other())
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 { // check: acceptance
		return ErrVerdict
	}
	return nil
}
