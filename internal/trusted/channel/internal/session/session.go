// Package session is what the channels between TEEs share: the TLS stream, the
// messages, the state machine, and the open channel. Package channel adds quotes
// to it, package local reports of one machine.
//
// It trusts its Method to tell genuine evidence, and the Policy to be the
// domain's. The other end, and everything between, is hostile until the
// handshake has ended. It hides the keys of the channel from the host; what it
// sends is readable by the attested peer only.
//
// Protocol: docs/channel.md.
package session

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/admission"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Errors of the handshake and of open channels, wrapped with what was found.
var (
	// ErrConfig says that the configuration is not usable.
	ErrConfig = errors.New("channel is not configured")
	// ErrTLS says that no TLS connection of this protocol came about.
	ErrTLS = errors.New("TLS connection of a channel refused")
	// ErrProtocol says that a message is malformed, too long or out of order.
	ErrProtocol = errors.New("channel protocol violated")
	// ErrPeer says that the peer claims a domain, role or side that is not wanted.
	ErrPeer = errors.New("peer of a channel is not the wanted one")
	// ErrReflected says that the peer uses the own messages.
	ErrReflected = errors.New("messages of a channel come back from the peer")
	// ErrEvidence says that the peer's evidence is not genuine, was not made for
	// this channel, or is not wanted. The cause is wrapped too.
	ErrEvidence = errors.New("evidence of a channel's peer refused")
	// ErrVerdict says that the peer's acceptance is not of this handshake.
	ErrVerdict = errors.New("acceptance of a channel's peer does not verify")
	// ErrRefused says that the peer refused; see Refusal.
	ErrRefused = errors.New("channel refused by the peer")
	// ErrTimeout says that the handshake, or an answer, took too long.
	ErrTimeout = errors.New("channel timed out")
	// ErrCrowded says that the handshake made room for a newer one.
	ErrCrowded = errors.New("too many handshakes at once")
	// ErrClosed says that this end has closed the channel.
	ErrClosed = errors.New("channel is closed")
	// ErrTruncated says that the stream ended without the peer's goodbye.
	ErrTruncated = errors.New("channel was cut off")
	// ErrExpired says that the peer must be attested again first.
	ErrExpired = errors.New("evidence of a channel's peer has expired")
	// ErrChanged says that the peer, attested again, is another one.
	ErrChanged = errors.New("peer of a channel has changed")
	// ErrOpen says that what was sealed does not open: for all causes.
	ErrOpen = errors.New("sealed message of a channel does not open")
	// ErrTooLong says that a message to be sent is empty or over the limit.
	ErrTooLong = errors.New("message is too long for a channel")
)

// A Role is what a program is in its domain, in the words of the manifest. The
// text is transmitted and never changes.
type Role string

// The roles. Each has a product id of its own.
const (
	Core       Role = manifest.RoleCore
	DKeyCache  Role = manifest.RoleDKeyCache
	DKeyServer Role = manifest.RoleDKeyServer
)

// Product returns the product id (ISVPRODID) of the programs of a role; zero,
// which no program has, for an unknown role.
func (r Role) Product() uint16 {
	switch r {
	case Core:
		return tee.ProductCore
	case DKeyCache:
		return tee.ProductDKeyCache
	case DKeyServer:
		return tee.ProductDKeyServer
	}
	return 0
}

// A Side is an end of a channel. Numbers are transmitted and never change.
type Side uint8

// The sides: who called, and who was called.
const (
	_ Side = iota
	Client
	Server
)

// String names the side as labels do.
func (s Side) String() string {
	if s == Client {
		return "client"
	}
	return "server"
}

func (s Side) other() Side { return Client + Server - s }

// A Policy says who is accepted. It is asked anew for each judgement, so that a
// new manifest counts from then on. Its methods are safe for concurrent use.
type Policy interface {
	// Now is the time of the TEE, which never runs backwards.
	Now() time.Time
	// Roots are the trust anchors of quotes.
	Roots() []*x509.Certificate
	// Accepts returns what is accepted of peers in a role; nil: nothing. One
	// enclave must not be in the policies of two roles.
	Accepts(Role) *validate.Policy
	// Admitted says that this program has accepted the platform before without
	// a grace period. It must not come from what the host can write.
	Admitted(verify.Platform) bool
	// Manifest is the version of the manifest that all of this comes from. It
	// never decreases. It travels with every message, and tells peers with an
	// older one to ask for it.
	Manifest() uint64
}

// A Lister is a Policy that knows which machines have been admitted for how long.
type Lister interface {
	// ListedSince is the date of the first signed statement since which every one has
	// admitted the platform by name; the zero time if the last does not.
	ListedSince(verify.Platform) time.Time
}

// A GuestPolicy is a Policy that accepts confidential guests too.
type GuestPolicy interface {
	// Guests returns the guests that are accepted in a role; nil: none. Accepts must
	// return what their machines must be.
	Guests(Role) *admission.Guests
}

// A Stranger is the refusal of a machine that made genuine evidence and is not
// admitted.
type Stranger struct {
	Machine attest.Machine
	Err     error
}

func (s *Stranger) Error() string { return s.Err.Error() }

// Unwrap returns why the machine is refused.
func (s *Stranger) Unwrap() error { return s.Err }

// Limits and defaults.
const (
	DefaultTimeout = 15 * time.Second // of a handshake
	DefaultMaxAge  = 24 * time.Hour   // of evidence
	MaxMessage     = 1 << 20          // bytes of a message of the application
	MaxCollateral  = 1 << 20          // bytes of encoded collateral in a message
)

// Config says who one is and who is wanted. It may serve many channels at once
// and must not be changed meanwhile.
type Config struct {
	// Role is the own one.
	Role Role
	// PeerRoles are those that the peer may have.
	PeerRoles []Role
	// Domain is the id of the domain to which both must belong.
	Domain [32]byte
	// Policy judges peers.
	Policy Policy

	// Attester makes quotes of the own program. Remote channels only.
	Attester attest.Attester
	// Collateral returns the encoded collateral for the own platform, at most
	// MaxCollateral bytes, for peers that have none. nil: peers must have it.
	// Remote channels only.
	Collateral func(context.Context) ([]byte, error)
	// PeerCollateral returns collateral for a peer's platform. nil: the peer
	// sends it. It is signed either way, but a peer's host may keep sending what
	// is in force for some days more. It is asked for whatever a stranger's quote
	// names, so it must answer soon, from memory. Guests are refused then: it is for
	// SGX. Remote channels only.
	PeerCollateral func(context.Context, verify.Query) (verify.Collateral, error)

	// Timeout bounds a handshake and each answer to Reattest. Default
	// DefaultTimeout.
	Timeout time.Duration
	// MaxAge is how old the peer's evidence may become before the channel
	// refuses to send and receive. Default DefaultMaxAge.
	MaxAge time.Duration
	// Limit bounds the handshakes of all channels that have it in their Config.
	// nil: no limit but Timeout, for clients.
	Limit *Limit
	// ManifestSeen is told the version of an attested peer's manifest, at the
	// start and whenever it has increased. It must return at once. nil: not told.
	ManifestSeen func(peer Role, version uint64)
}

func (c *Config) timeout() time.Duration {
	if c.Timeout == 0 {
		return DefaultTimeout
	}
	return c.Timeout
}

func (c *Config) maxAge() time.Duration {
	if c.MaxAge == 0 {
		return DefaultMaxAge
	}
	return c.MaxAge
}

// check refuses configurations that could accept anything by omission.
func (c *Config) check() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrConfig, what) }
	switch {
	case c == nil || c.Policy == nil:
		return bad("no policy")
	case c.Role.Product() == 0:
		return bad("unknown role " + string(c.Role))
	case len(c.PeerRoles) == 0 || slices.ContainsFunc(c.PeerRoles, func(r Role) bool { return r.Product() == 0 }):
		return bad("no roles of peers, or an unknown one")
	case c.Domain == [32]byte{}:
		return bad("no domain")
	case c.Timeout < 0 || c.MaxAge < 0:
		return bad("negative time")
	}
	return nil
}

// Peer is who the other end has proved to be.
type Peer struct {
	Role     Role
	Identity tee.Identity // the program, as its platform measured it
	Decision validate.Decision
	// Kind is that of the evidence, and Machine what it names of the peer's machine;
	// both zero on a local channel.
	Kind    attest.Kind
	Machine attest.Machine
	// Quote is what was verified of the peer's quote; nil on a local channel, and of
	// SEV-SNP guests. Of TDX guests it has no Report.
	Quote *verify.Result
	// HPKEKey is the key that Seal encrypts to: MLKEM768-X25519, made in the peer
	// for this channel.
	HPKEKey []byte
	// Manifest is the highest version that the peer has named.
	Manifest uint64
	// Attested is when the peer's evidence was last accepted, by Policy.Now.
	Attested time.Time
	// Until is when it ends to be acceptable: certificates, collateral or grace
	// end then. Zero: nothing of it ends by itself.
	Until time.Time
}

// A Claim is evidence, and what the peer says it is evidence of.
type Claim struct {
	Role       Role
	Evidence   []byte // as the peer's Method made it
	Collateral []byte // sent by the peer; may be empty
	ReportData [64]byte
	Policy     *validate.Policy // of the role
	Now        time.Time
}

// A Verdict is what a Method found acceptable.
type Verdict struct {
	Identity tee.Identity
	Decision validate.Decision
	Kind     attest.Kind
	Machine  attest.Machine
	Quote    *verify.Result
	Until    time.Time
}

// A Kind distinguishes the protocols that are built on this package.
type Kind struct {
	Name string     // of TLS ALPN, and in labels of exporters
	Use  attest.Use // of REPORTDATA
	// Open says that the opening messages are bound into REPORTDATA.
	Open bool
	// Wants says that the peer shall send its collateral.
	Wants bool
}

// A Method is how evidence is made and judged.
type Method interface {
	Kind() Kind
	// Target is what the peer needs to make evidence for this program, at most
	// MaxTarget bytes; empty where it needs nothing.
	Target() ([]byte, error)
	// Prove binds reportData to this program, for the peer with the target.
	Prove(ctx context.Context, target []byte, reportData [64]byte) ([]byte, error)
	// Endorse returns the collateral to be sent along, encoded; may be empty.
	Endorse(ctx context.Context) ([]byte, error)
	// Judge verifies evidence, compares its REPORTDATA in constant time, and
	// validates the rest under the claim's policy.
	Judge(ctx context.Context, c Claim) (Verdict, error)
}
