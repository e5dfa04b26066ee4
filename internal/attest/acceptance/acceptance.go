// Package acceptance holds the words of an acceptance run, which shows that a
// machine's TEE can carry a core: what the host asks of the program in the TEE,
// what that answers, and the report of both. How they are bound to the TEE's
// evidence is here too; whether a report is good is in package judge.
//
// A run holds no domain and no key of anybody. The package holds no secrets and
// does no I/O. Layout: docs/formats.md#acceptance-v1.
package acceptance

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/acceptance/speed"
)

// Values of the members "format".
const (
	RequestFormat   = "ehsm-acceptance-request/v1"
	StatementFormat = "ehsm-acceptance-statement/v1"
	ReportFormat    = "ehsm-acceptance-report/v1"
)

// RequestFile is the name of the request in the domain directory, the one place
// of the host that every enclave configuration lets the program read.
const RequestFile = "acceptance.json"

// Limits in bytes, unless said otherwise.
const (
	MaxRequest   = 16 << 10
	MaxStatement = 256 << 10
	MaxReport    = 8 << 20

	NonceSize = 32
	MaxEach   = 10 * time.Second
	MaxMemory = 1024 // MiB
)

// ErrMalformed is wrapped by the errors of the decoders.
var ErrMalformed = errors.New("acceptance document is malformed")

// Hex is bytes that JSON shows in lower-case hex.
type Hex []byte

// MarshalText implements encoding.TextMarshaler.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hex) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

// A Request is what the host asks of the program in the TEE.
type Request struct {
	Format string        `json:"format"`
	Nonce  Hex           `json:"nonce"`                 // NonceSize bytes, bound into the evidence
	Each   time.Duration `json:"eachNanoseconds"`       // of the measurements of throughput, at most MaxEach; 0: none
	Memory int           `json:"memoryMiB"`             // to fill and read back, at most MaxMemory; 0: none
	Seals  []Seal        `json:"sealsOfRun1,omitempty"` // of an earlier run, to be opened again
}

// A Seal is a known text under a seal key of the platform, with the request that
// gives the key again; see tee.KeyRequest.
type Seal struct {
	Policy uint8  `json:"policy"`
	SVN    uint16 `json:"svn"`
	KeyID  Hex    `json:"keyID"`          // 32 bytes
	Info   Hex    `json:"info,omitempty"` // the platform's own
	Sealed Hex    `json:"sealed"`         // AES-256-GCM
}

// A Name names a check.
type Name string

// The checks of the program in the TEE.
const (
	Identity    Name = "identity"
	Randomness  Name = "randomness"
	Evidence    Name = "evidence"
	SealKeys    Name = "seal"
	Restart     Name = "seal-after-restart" // of a second run only
	LocalReport Name = "local-report"
	Clock       Name = "clock"
	Memory      Name = "memory"     // if it was asked for
	Throughput  Name = "throughput" // if it was asked for
)

// An Outcome is how a check ended.
type Outcome string

// The outcomes. Everything else is malformed.
const (
	Pass         Outcome = "pass"
	Fail         Outcome = "fail"
	NotAvailable Outcome = "not available" // the platform does not have it, which is no failure
)

// A Check is one thing that the program in the TEE looked at.
type Check struct {
	Name    Name    `json:"check"`
	Outcome Outcome `json:"outcome"`
	Detail  string  `json:"detail"` // what was found, for people
}

// NewCheck makes a check, whose detail is cut to what a report can hold.
func NewCheck(name Name, outcome Outcome, detail string) Check {
	const most = 500 // bytes
	return Check{Name: name, Outcome: outcome, Detail: Text(detail, most)}
}

// Text returns s as a report can hold it: valid UTF-8 of at most limit bytes.
func Text(s string, limit int) string {
	return strings.ToValidUTF8(s[:min(len(s), limit)], "?")
}

// A Platform is what the TEE says of the program in it; see tee.Identity.
type Platform struct {
	Name        string `json:"name"`
	Simulated   bool   `json:"simulated"`
	Measurement Hex    `json:"measurement"` // 32 bytes
	Signer      Hex    `json:"signer"`      // 32 bytes
	Product     uint16 `json:"product"`
	SVN         uint16 `json:"svn"`
	Debug       bool   `json:"debug"`
}

// A Result is what the program in the TEE found. All of it is the program's word,
// which is worth what the evidence over it is worth.
type Result struct {
	Nonce      Hex          `json:"nonce"` // of the request
	Version    string       `json:"version"`
	Go         string       `json:"go"`
	Processors int          `json:"processors"` // that Go uses at a time
	Started    time.Time    `json:"started"`    // by the clock of the program, which is the host's
	Finished   time.Time    `json:"finished"`
	Platform   Platform     `json:"platform"`
	Checks     []Check      `json:"checks"`
	Seals      []Seal       `json:"seals,omitempty"`       // made in this run
	Opened     []Hex        `json:"openedSeals,omitempty"` // KEYIDs of those of the request
	Throughput []speed.Rate `json:"throughput,omitempty"`
}

// Check returns the check of a name, if the program did it.
func (r *Result) Check(name Name) (Check, bool) {
	for _, c := range r.Checks {
		if c.Name == name {
			return c, true
		}
	}
	return Check{}, false
}

// DecodeRequest reads a request and refuses one that asks for too much.
// Errors: ErrMalformed.
func DecodeRequest(b []byte) (*Request, error) {
	var q Request
	if err := decode(b, MaxRequest, &q); err != nil {
		return nil, err
	}
	switch {
	case q.Format != RequestFormat:
		return nil, fmt.Errorf("%w: format %q, want %q", ErrMalformed, q.Format, RequestFormat)
	case len(q.Nonce) != NonceSize:
		return nil, fmt.Errorf("%w: nonce of %d bytes, want %d", ErrMalformed, len(q.Nonce), NonceSize)
	case q.Each < 0 || q.Each > MaxEach:
		return nil, fmt.Errorf("%w: measurements of %v, limit %v", ErrMalformed, q.Each, MaxEach)
	case q.Memory < 0 || q.Memory > MaxMemory:
		return nil, fmt.Errorf("%w: %d MiB, limit %d", ErrMalformed, q.Memory, MaxMemory)
	}
	for _, s := range q.Seals {
		if len(s.KeyID) != 32 {
			return nil, fmt.Errorf("%w: KEYID of %d bytes, want 32", ErrMalformed, len(s.KeyID))
		}
	}
	return &q, nil
}

// encode returns the one encoding of a document: compact JSON, members in the
// order of their declaration.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil { // all types here can be encoded
		panic(fmt.Sprintf("acceptance: encode %T: %v", v, err))
	}
	return b
}

// decode reads the one encoding of a document, with white space at will, so that
// what is hashed is what is read.
func decode(b []byte, limit int, v any) error {
	if len(b) > limit {
		return fmt.Errorf("%w: %d bytes, limit %d", ErrMalformed, len(b), limit)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil { // also refuses what follows
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !bytes.Equal(compact.Bytes(), encode(v)) {
		return fmt.Errorf("%w: a member is missing, twice, out of order or written in another way", ErrMalformed)
	}
	return nil
}
