// Package channel makes attested channels between TEEs of one domain that trust
// nothing between them: TLS 1.3 between fresh keys, bound on both sides to quotes
// that each verifies of the other before any byte of an application passes. Where
// two programs share a machine, package local does it with reports of the machine.
//
// It trusts the platform's quotes, Intel's collateral, and the Policy that the
// caller gives it. It hides from the host everything that is sent; the host sees
// sizes and times, and may end a channel.
//
// Protocol, state machine and formats: docs/channel.md.
package channel

import (
	"context"
	"fmt"
	"net"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel/internal/session"
)

// What is the same for remote and local channels is documented there.
type (
	Config      = session.Config      // who one is and who is wanted
	Policy      = session.Policy      // who is accepted
	GuestPolicy = session.GuestPolicy // a Policy that accepts guests
	Stranger    = session.Stranger    // a machine that is not admitted
	Lister      = session.Lister      // a Policy that knows since when
	Limit       = session.Limit       // what handshakes of strangers may cost
	Conn        = session.Conn        // an open channel
	Peer        = session.Peer        // who the other end has proved to be
	Role        = session.Role        // what a program is in its domain
	Side        = session.Side        // who called, or who was called
	Refusal     = session.Refusal     // what a peer said that refused
	Reason      = session.Reason      // why it did
)

// The roles.
const (
	Core       = session.Core
	DKeyCache  = session.DKeyCache
	DKeyServer = session.DKeyServer
)

// Limits and defaults; see package session.
const (
	DefaultTimeout = session.DefaultTimeout
	DefaultMaxAge  = session.DefaultMaxAge
	MaxMessage     = session.MaxMessage
	MaxCollateral  = session.MaxCollateral
	Overhead       = session.Overhead
)

// What a peer says that refuses.
const (
	ReasonProtocol = session.ReasonProtocol
	ReasonPeer     = session.ReasonPeer
	ReasonEvidence = session.ReasonEvidence
	ReasonBusy     = session.ReasonBusy
	ReasonOther    = session.ReasonOther
)

// Errors of handshakes and channels, wrapped with what was found.
var (
	ErrConfig    = session.ErrConfig
	ErrTLS       = session.ErrTLS
	ErrProtocol  = session.ErrProtocol
	ErrPeer      = session.ErrPeer
	ErrReflected = session.ErrReflected
	ErrEvidence  = session.ErrEvidence
	ErrVerdict   = session.ErrVerdict
	ErrRefused   = session.ErrRefused
	ErrTimeout   = session.ErrTimeout
	ErrCrowded   = session.ErrCrowded
	ErrClosed    = session.ErrClosed
	ErrTruncated = session.ErrTruncated
	ErrExpired   = session.ErrExpired
	ErrChanged   = session.ErrChanged
	ErrOpen      = session.ErrOpen
	ErrTooLong   = session.ErrTooLong
)

// Protocol is the name of the remote channel in TLS ALPN.
const Protocol = "ehsm-attest/1"

// Client makes a channel of a connection that it has made, and closes conn when
// that fails. ctx bounds the handshake only. The config needs an Attester.
// Errors: those of this package.
func Client(ctx context.Context, conn net.Conn, cfg *Config) (*Conn, error) {
	return run(ctx, conn, session.Client, cfg)
}

// Server is Client for a connection that was accepted. The config should have a
// Limit.
func Server(ctx context.Context, conn net.Conn, cfg *Config) (*Conn, error) {
	return run(ctx, conn, session.Server, cfg)
}

func run(ctx context.Context, conn net.Conn, s Side, cfg *Config) (*Conn, error) {
	if cfg == nil || cfg.Attester == nil {
		conn.Close()
		return nil, fmt.Errorf("%w: no attester", ErrConfig)
	}
	return session.Run(ctx, conn, s, quotes{cfg}, cfg)
}

// quotes is the method of remote channels.
type quotes struct{ cfg *Config }

// Kind implements session.Method.
func (q quotes) Kind() session.Kind {
	return session.Kind{Name: Protocol, Use: attest.UseChannel, Wants: q.cfg.PeerCollateral == nil}
}

// Target implements session.Method: a quote is for everybody.
func (q quotes) Target() ([]byte, error) { return nil, nil }

// Prove implements session.Method.
func (q quotes) Prove(ctx context.Context, target []byte, reportData [64]byte) ([]byte, error) {
	if len(target) != 0 { // check: quote-target
		return nil, fmt.Errorf("%w: target of %d bytes for a quote", ErrProtocol, len(target))
	}
	e, err := q.cfg.Attester.Evidence(ctx, reportData)
	if err != nil {
		return nil, err
	}
	return e.Append(nil), nil
}

// Endorse implements session.Method.
func (q quotes) Endorse(ctx context.Context) ([]byte, error) {
	if q.cfg.Collateral == nil {
		return nil, nil
	}
	return q.cfg.Collateral(ctx)
}

// collateral returns the own collateral for a quote, or else the peer's.
func (q quotes) collateral(ctx context.Context, quote, sent []byte) (verify.Collateral, error) {
	if q.cfg.PeerCollateral == nil {
		return verify.DecodeCollateral(sent)
	}
	if err := unasked(sent); err != nil {
		return verify.Collateral{}, err
	}
	query, err := verify.QueryOf(quote)
	if err != nil {
		return verify.Collateral{}, err
	}
	return q.cfg.PeerCollateral(ctx, query)
}

// unasked refuses what is sent to a program that has collateral of its own.
func unasked(sent []byte) error {
	if len(sent) != 0 { // check: collateral-unasked
		return fmt.Errorf("%w: collateral that nobody asked for", ErrProtocol)
	}
	return nil
}
