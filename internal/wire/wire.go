// Package wire is what passes between the manager on the host and the core in
// the TEE: messages, framing and limits. It does no I/O of its own beyond
// reading and writing frames on a stream it is given, and it holds no secrets:
// everything here is seen by the host.
//
// The core is a function. The manager sends a Call with the request as the
// client signed it and references to the sealed records it names, and gets one
// Answer. Layouts: docs/formats.md#wire.
package wire

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// Limits of the messages. A frame over MaxFrame is refused before it is read.
const (
	MaxFrame   = 64 << 20 // bytes; a listing of MaxSecrets of the largest records
	MaxBody    = 8 << 20  // bytes of one raw request; the native API allows 100 kB
	MaxRecord  = 64 << 10 // bytes of one sealed record
	MaxRecords = 16       // records named by one call
	MaxList    = 10000    // records of one listing
	MaxSecrets = 4000     // secrets, or versions of a secret, of one listing
	MaxWrites  = 512      // records returned by one answer
	MaxName    = 128      // bytes of an action or request id
	MaxSign    = 256      // bytes of a reply signature
	// MaxCollateral is the longest answer to a CollateralQuery, in bytes.
	MaxCollateral = 4 << 20
	SweepStep     = 500 // records changed by one step of a sweep
	SweepSecrets  = 200 // secrets taken away by one step of a sweep
	RewrapStep    = 500 // records wrapped anew by one step
)

// Core is the trusted service, called in-process or over a stream. All methods
// are safe for concurrent use. An error means that the core could not be
// reached or refused the message itself; a refused request is an Answer.
type Core interface {
	// Info describes the running core; nothing in it is secret.
	Info(context.Context) (Info, error)
	// Call executes one request of a client.
	Call(context.Context, *Call) (*Answer, error)
	// Resolve tells the outcome of storing the writes of a pending answer.
	Resolve(context.Context, Resolve) (*Answer, error)
	// Sweep carries a bulk change that the tenant's app record already states
	// over to single records, or purges a secret at the date its record states.
	Sweep(context.Context, *Sweep) (*Answer, error)
	// Checkpoint signs the audit chain as far as it has come.
	Checkpoint(context.Context) (*Answer, error)
}

// NewUUID draws a random UUID, version 4 of RFC 9562.
func NewUUID() (u UUID) {
	rand.Read(u[:]) // never fails
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return u
}

// UUID is a tenant, key or record identifier.
type UUID [16]byte

// ErrUUID is returned for text that is not a lower-case UUID.
var ErrUUID = errors.New("not a lower-case UUID")

// ParseUUID reads the form 8-4-4-4-12 in lower-case hex, and no other.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return u, ErrUUID
	}
	var digits [32]byte
	n := 0
	for i := range len(s) {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
		case c >= '0' && c <= '9' || c >= 'a' && c <= 'f':
			digits[n] = c
			n++
		default:
			return u, ErrUUID
		}
	}
	if n != 32 {
		return u, ErrUUID
	}
	_, err := hex.Decode(u[:], digits[:])
	return u, err
}

// String returns the form 8-4-4-4-12.
func (u UUID) String() string {
	var b [36]byte
	hex.Encode(b[0:8], u[0:4])
	hex.Encode(b[9:13], u[4:6])
	hex.Encode(b[14:18], u[6:8])
	hex.Encode(b[19:23], u[8:10])
	hex.Encode(b[24:36], u[10:16])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// RecordType is the kind of a sealed record. Numbers are persisted and never
// change.
type RecordType uint8

const (
	_             RecordType = iota
	App                      // a tenant with its credentials
	Key                      // a CMK's attributes and the list of its versions
	KeyVersion               // the material of one version of a CMK
	ImportSession            // the key pair that wraps material on its way into a CMK
	Secret                   // a secret's name, description and current version
	SecretVersion            // one value of a secret, encrypted under a CMK
	QuotePolicy              // which enclave's quotes a tenant wants
	Token                    // an enrollment token, of which only a hash is kept
	Policy                   // what credentials that name it may do
)

// TenantSettings is what a tenant's owner has decided beside its credentials: who may
// log in.
const TenantSettings RecordType = 12

// String names the type for logs and errors.
func (t RecordType) String() string {
	switch t {
	case App:
		return "app"
	case Key:
		return "key"
	case KeyVersion:
		return "key version"
	case ImportSession:
		return "import session"
	case Secret:
		return "secret"
	case SecretVersion:
		return "secret version"
	case QuotePolicy:
		return "quote policy"
	case Token:
		return "enrollment token"
	case Policy:
		return "policy"
	case TenantSettings:
		return "tenant settings"
	}
	return fmt.Sprintf("record type %d", uint8(t))
}

// RecordID names a record in the store. An app's ID equals its Tenant; a key
// version has its key's ID and its number; an import session has its key's ID; a
// secret has the ID that SecretID gives its name; a secret version has the ID of
// its secret's incarnation and its number. A quote policy and a policy have IDs of
// their own. An enrollment token has the ID that its text names, and no tenant. The settings of a
// tenant have its ID. The app without a
// tenant, all zero, is the domain: its credentials are those of the administrators.
// Every record but versions has Version 0.
type RecordID struct {
	Type    RecordType
	Tenant  UUID
	ID      UUID
	Version uint32
}

// String names the record for logs and errors.
func (id RecordID) String() string {
	if id.Version != 0 {
		return fmt.Sprintf("%s %s/%d", id.Type, id.ID, id.Version)
	}
	return fmt.Sprintf("%s %s", id.Type, id.ID)
}

const secretLabel = "ehsm/secret-name/v1\x00"

// SecretID returns the ID of the record of a tenant's secret: the first 16 bytes
// of SHA-256 over a label, the tenant and the name, so that the manager finds it
// from a request. It holds the name back from who has the database only as far
// as names cannot be guessed.
func SecretID(tenant UUID, name string) UUID {
	b := make([]byte, 0, len(secretLabel)+len(tenant)+len(name))
	b = append(append(append(b, secretLabel...), tenant[:]...), name...)
	sum := sha256.Sum256(b)
	return UUID(sum[:16])
}

// Tag names a state of a record beside its revision: it is the authentication tag
// with which the state was sealed first, and stays when the state is wrapped under
// another version of the DomainKey. SealedTag finds it.
type Tag [16]byte

// Ref names one state of a record. Sealed is its bytes, or nil where the core
// is expected to hold the record opened. Revision 0 says that the store has no
// such record.
type Ref struct {
	ID       RecordID
	Revision uint64
	Tag      Tag
	Sealed   []byte
}

// A Call is one request of a client as it arrived.
type Call struct {
	RequestID string // chosen by the manager, at most MaxName bytes; audited
	Action    string // as in the URL
	Get       bool   // the request's method was GET
	Body      []byte // as signed
	Records   []Ref  // what the request names
	Listing   []Ref  // the answer to a Query, all with Sealed
	Listed    bool   // Listing is an answer, if perhaps an empty one
	Fresh     bool   // Records were read from the store for this very call
	Again     uint8  // how often the call was made before and answered with Need, 255 if more often
	// Collateral is the answer to a CollateralQuery, in the encoding of
	// collateral in docs/formats.md. If Collated is set and it is empty, there is none.
	Collateral []byte
	Collated   bool
	// Floor is the least version of the DomainKey under which the store takes records,
	// 0 if that is not known. The core uses no lower one from then on.
	Floor uint32
}

// Kind says what the manager does with an answer.
type Kind uint8

const (
	_       Kind = iota
	Final        // release Reply
	Pending      // store Writes and Replay, then Resolve; the reply comes with that answer
	Need         // repeat the call with the records, listing and collateral asked for
)

// An Answer is what the core returns.
type Answer struct {
	Kind    Kind
	Code    int    // code of the reply's envelope, for metrics; 0 if there is none
	Reply   []byte // envelope to send
	Sign    string // value of the Ehsm-Reply-Signature header, "" on unauthenticated replies
	Release int64  // do not send Reply before this time, Unix microseconds; 0: at once

	Handle uint64    // of a pending answer
	Writes []Write   // store all of them or none
	Replay *Replay   // store it in the same transaction
	Facts  *NewFacts // likewise

	NeedRecords    []RecordID
	NeedList       *Query
	NeedCollateral *CollateralQuery
	// NeedVersion is a version of the DomainKey that this core does not have yet, 0 if
	// it lacks none. It is fetching it: repeat the call a little later.
	NeedVersion uint32
	// NeedFacts asks for more of the log of negative facts, see Witness.
	NeedFacts bool

	Audit Audit // hand it to the sink before anything else is done with the answer
}

// A Write stores one record, or removes records.
type Write struct {
	ID       RecordID
	Expected uint64 // revision that must be stored now; 0: no such record
	Revision uint64
	Hidden   bool   // leave it out of listings
	Primary  uint32 // of a key: the version to send along with it
	Sweep    bool   // of an app: a sweep of its keys is due
	Due      int64  // of a key or secret: when to offer it for a sweep, Unix milliseconds; 0: never
	// Rewrapped says that Sealed is the state that is stored, wrapped under another
	// version of the DomainKey. Expected is Revision; nothing of the row changes but
	// the bytes, and all other fields but ID are zero. Nobody need be told: the state
	// keeps its name.
	Rewrapped bool
	// Remove takes the record away, whatever its revision is and whether there
	// is one; of a key or secret version with Version 0, all versions of that ID. All
	// other fields but ID are zero.
	Remove bool
	Sealed []byte
}

// Tag returns the tag of the written state.
func (w Write) Tag() Tag { return SealedTag(w.Sealed) }

// A Replay is the entry that makes a signed request usable once on all nodes.
// The store refuses a transaction whose entry it already has.
type Replay struct {
	Tenant UUID
	Tag    Tag   // of the request's MAC
	Until  int64 // Unix milliseconds after which the entry may be dropped
}

// A Query asks for records of one type and tenant that are not hidden, for
// versions, or for the apps of all tenants, in the order of their IDs.
type Query struct {
	Type   RecordType
	Tenant UUID   // of apps: zero
	ID     UUID   // of versions: their common ID; of apps: only those above it; else zero, for all IDs
	After  uint32 // of versions: only those with a higher number
	Limit  int
}

// The CAs that issue PCK certificates, as Intel's services name them.
const (
	ProcessorCA = "processor"
	PlatformCA  = "platform"
)

// A CollateralQuery asks for what Intel says of one kind of platform. It comes
// from a quote that nobody has verified yet.
type CollateralQuery struct {
	FMSPC [6]byte // family, model, stepping, platform type, custom SKU
	CA    string  // ProcessorCA or PlatformCA
}

// Audit is a run of framed audit entries with consecutive sequence numbers.
// Layout of the frames: package trail.
type Audit struct {
	First   uint64 // sequence number of the first entry
	Count   int    // number of entries, 0 if there are none
	Durable bool   // wait until they are on disk before the reply is released
	Frames  []byte
}

// Outcome is what became of the writes of a pending answer.
type Outcome uint8

const (
	_        Outcome = iota
	Stored           // durable: the answer carries the reply of the action, which may be an error
	Conflict         // another revision was there: nothing remains, the call will be repeated; no reply
	Replayed         // the store had the replay entry: nothing remains; the reply says so
	Failed           // certainly not stored: nothing remains; the reply is the action's storage error
)

// Resolve ends a pending answer.
type Resolve struct {
	Handle  uint64
	Outcome Outcome
}

// A Sweep names an app record and up to SweepStep key records of its tenant, or up to
// SweepSecrets secrets of it if the app was deleted, or one secret whose planned
// deletion is due. All come with their bytes.
type Sweep struct {
	RequestID string
	App       Ref
	Keys      []Ref  // keys or secrets
	Secret    Ref    // a secret to be purged, or a key to which something is due, if its type is not 0; then Keys is empty
	Floor     uint32 // as in a Call
}

// Info describes a running core.
type Info struct {
	Version        string   // of the program
	GitSHA         string   // commit it was built from, "" if unknown
	Platform       string   // "sim" and so on
	Domain         [32]byte // domain id
	Instance       UUID     // of this start
	AuditKey       [32]byte // Ed25519 public key that signs this instance's checkpoints
	Simulated      bool     // keys are not protected by hardware
	OpenEnrollment bool     // the genesis lets anyone enroll
	// HPKEKey is this instance's public key for HPKE with MLKEM768-X25519. It
	// proves nothing by itself: evidence binds it, see GetEvidence.
	HPKEKey [HPKEKeySize]byte
	// What follows changes while the core runs.
	Manifest  uint64 // version of the manifest in force
	DomainKey uint32 // version of the DomainKey that new records are wrapped under
	// Compromised is the highest version that operators say has leaked, 0 if none has.
	// Who has it has read all material that was made under it or before: what was
	// wrapped under earlier versions was wrapped anew under this one.
	Compromised uint32
}

// HPKEKeySize is the length of a public key for HPKE with MLKEM768-X25519, in
// bytes: 1184 of ML-KEM-768 and 32 of X25519.
const HPKEKeySize = 1216
