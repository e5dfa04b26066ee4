// Package overview is what a dkeyserver tells an operator of its domain: who takes
// part, under which manifest, with which DomainKey, and what deserves a look. It
// has the document, what it warns of, and the protocol of the dkeyserver's door.
//
// Nothing in it is secret, and nothing decides anything. What is marked as the
// host's word is not verified by anybody.
//
// Layout: docs/formats.md#status-v1.
package overview

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Format is the value of a status' member "format".
const Format = "ehsm-status/v1"

// ErrStatus is wrapped by the errors of what is no status.
var ErrStatus = errors.New("malformed status of the domain")

// A Status is what a dkeyserver knows of its domain. Each topic is a struct of its
// own; one that is nil has nothing to say.
type Status struct {
	Format   string    `json:"format"`
	At       time.Time `json:"at"` // by the clock of the dkeyserver, in UTC and whole seconds
	Domain   Domain    `json:"domain"`
	Manifest Manifest  `json:"manifest"`
	Key      Key       `json:"domainKey"`
	Server   Server    `json:"server"`
	// Members are the programs that take part or did in the last 24 hours, the
	// answering one first; at most 4096.
	Members []Member `json:"members"`
	// Machines are those that the manifest admits by name.
	Machines []manifest.Platform `json:"machines,omitempty"`
	// Waiting are machines that were refused, the first to come first.
	Waiting []Waiting `json:"waiting,omitempty"`
	// Recovery is nil where there is no recovery key: who loses all dkeyservers loses
	// every key.
	Recovery *Recovery `json:"recovery,omitempty"`
	// Facts is nil as long as nothing was disabled or deleted.
	Facts *Facts `json:"facts,omitempty"`
}

// Domain is what the manifest says of the domain as a whole.
type Domain struct {
	ID          manifest.Hash `json:"id"`
	Mode        manifest.Mode `json:"mode"`
	Root        manifest.Root `json:"root"`
	AllowSim    bool          `json:"allowSim,omitempty"`
	AnyPlatform bool          `json:"anyPlatform,omitempty"`
	// HSMWithoutTEE is that of the settings: an HSM may stand on a machine without a
	// TEE.
	HSMWithoutTEE bool `json:"hsmWithoutTEE,omitempty"`
	LeaseHours    int  `json:"leaseHours"`
}

// Manifest is the one in force.
type Manifest struct {
	Version   uint64        `json:"version"`
	Date      time.Time     `json:"date"`
	Hash      manifest.Hash `json:"hash"`
	Signers   []string      `json:"signers,omitempty"` // names of the operators that signed it
	Operators []string      `json:"operators,omitempty"`
	Threshold int           `json:"threshold"` // of operators that the next one takes
	// Since is when the answering dkeyserver took it, or started with it.
	Since time.Time `json:"since,omitzero"`
}

// Key is the DomainKey as the dkeyserver has it.
type Key struct {
	Version uint32 `json:"version"` // the newest; 0: it has none
	// InMemory says that the dkeyserver's platform has no seal key: it has to be given
	// the DomainKey again at its next start.
	InMemory bool `json:"inMemory,omitempty"`
	// Lost says why it has none any more; empty if it has one, or never had.
	Lost string `json:"lost,omitempty"`
}

// Server is the dkeyserver that answers.
type Server struct {
	Kind    string    `json:"kind"` // root or worker
	Release string    `json:"release"`
	Started time.Time `json:"started"`
}

// State says what became of a member.
type State string

// The states.
const (
	Connected State = "connected"
	Left      State = "left"    // its connection ended; it may still serve under its lease
	Removed   State = "removed" // the manifest no longer admits it, and it was told so
)

// Kinds of evidence by which a member was attested.
const (
	ByQuote  = "quote"  // of its platform, with collateral
	ByReport = "report" // of the machine that its dkeycache is on
	ByItself = "self"   // the dkeyserver that answers: nobody has judged it here
)

// An ID names a running program from its start to its end, in texts 32 hex digits.
type ID [16]byte

// String returns the id in hex.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(id)) {
		return fmt.Errorf("%q has %d characters, want %d hex digits", b, len(b), hex.EncodedLen(len(id)))
	}
	_, err := hex.Decode(id[:], b)
	return err
}

// A Member is a program of the domain. What its evidence says is as the program
// that attested it has judged it; manifest, DomainKey and lease are what it says
// of itself on its attested channel.
type Member struct {
	Instance ID     `json:"instance"`
	Role     string `json:"role"` // core, dkeycache or dkeyserver
	// Via is the instance that has attested it: of a core, its dkeycache.
	Via   ID    `json:"via"`
	State State `json:"state"`

	Evidence string        `json:"evidence"` // ByQuote, ByReport or ByItself
	Platform string        `json:"platform"` // kind of TEE, such as sgx; sim if it is simulated
	Machine  string        `json:"machine,omitempty"`
	PPID     manifest.PPID `json:"ppid,omitzero"`
	Serial   string        `json:"pckSerial,omitempty"`

	MREnclave manifest.Hash `json:"mrenclave"`
	MRSigner  manifest.Hash `json:"mrsigner"`
	Product   uint16        `json:"productId"`
	SVN       uint16        `json:"svn"`
	Debug     bool          `json:"debug,omitempty"`

	TCBStatus  string   `json:"tcbStatus,omitempty"`
	Advisories []string `json:"advisories,omitempty"`
	// TCBGraceUntil and CollateralGraceUntil are set where the member is accepted
	// only for a grace period, and say when it ends.
	TCBGraceUntil        time.Time `json:"tcbGraceUntil,omitzero"`
	CollateralGraceUntil time.Time `json:"collateralGraceUntil,omitzero"`
	// EvidenceUntil is when its evidence ends to be acceptable by itself.
	EvidenceUntil time.Time `json:"evidenceUntil,omitzero"`
	Attested      time.Time `json:"attested,omitzero"`

	Manifest     uint64 `json:"manifest"`  // version
	DomainKey    uint32 `json:"domainKey"` // newest version that it has; 0: none
	LeaseSeconds uint32 `json:"leaseSeconds"`
	SeenSeconds  uint32 `json:"seenSeconds"` // how long ago it was heard of last
	// Rewrap is, of a core, what its manager says of the store.
	Rewrap Rewrap `json:"rewrap,omitzero"`
	// Address is where it connected from, by the word of the host of Via.
	Address string `json:"address,omitempty"`
}

// Waiting is a machine that sent genuine evidence and is not admitted.
type Waiting struct {
	PPID   manifest.PPID `json:"ppid"`
	Serial string        `json:"pckSerial"`
	First  time.Time     `json:"first"`
	Last   time.Time     `json:"last"`
	Times  int           `json:"times"`
	// Was is its name in an earlier manifest, if it had one: it was removed.
	Was string `json:"was,omitempty"`
	// From is where it connected from last, by the word of the dkeyserver's host.
	From string `json:"from,omitempty"`
}

// Encode returns the one encoding of s.
func (s *Status) Encode() ([]byte, error) { return encode(s) }

// ParseStatus reads what Encode wrote, and nothing else. A member that this program
// does not know is refused: it may be a warning. Errors: ErrStatus.
func ParseStatus(b []byte) (*Status, error) {
	s := new(Status)
	if err := parse(b, s); err != nil {
		return nil, err
	}
	if s.Format != Format { // check: status-format
		return nil, fmt.Errorf("%w: format %.40q, want %q", ErrStatus, s.Format, Format)
	}
	return s, s.validate()
}

// encode writes compact JSON that shows texts as they are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// parse reads what encode wrote of the type of v, and nothing else.
func parse(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w; a later release may write it", ErrStatus, err)
	}
	again, err := encode(v)
	if err != nil || !bytes.Equal(again, b) { // check: status-one-form
		return fmt.Errorf("%w: it is not in the one form of its contents", ErrStatus)
	}
	return nil
}
