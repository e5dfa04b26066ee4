package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// ErrRefused is returned for every refusal of the daemon that is none of package
// tee's.
var ErrRefused = errors.New("the daemon of the simulated platform refuses")

const (
	statusOK       = 0
	statusRefused  = 1
	statusKey      = 2
	statusEvidence = 3
	statusIdentity = 4
	statusNoSeal   = 5

	maxText        = 4 << 10
	maxEnvironment = 64 << 10
	minVariable    = 2 + 4 // a name and a value of no bytes
)

// reasons are the errors that keep their meaning on the way, by status.
var reasons = [...]error{
	statusRefused: ErrRefused, statusKey: tee.ErrKeyRequest, statusEvidence: tee.ErrEvidence, statusIdentity: tee.ErrIdentity,
	statusNoSeal: tee.ErrNoSealKey,
}

// AppendReply appends the reply to a request: body, or what err says.
func AppendReply(dst, body []byte, err error) []byte {
	if err == nil {
		return append(append(dst, statusOK), body...)
	}
	status := uint8(statusRefused)
	for s, reason := range reasons {
		if s != statusOK && errors.Is(err, reason) {
			status = uint8(s)
		}
	}
	text := err.Error()
	return append(append(dst, status), text[:min(len(text), maxText)]...)
}

// DecodeReply returns the body of a reply, which shares memory with b. A refusal is
// a Refusal. Errors: also pack.ErrMalformed.
func DecodeReply(b []byte) ([]byte, error) {
	in := pack.NewReader(b)
	status := in.Uint8()
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("decode reply: %w", err)
	}
	if status == statusOK {
		return in.Rest(), nil
	}
	if int(status) >= len(reasons) || in.Len() > maxText {
		return nil, fmt.Errorf("decode reply: %w: status %d with %d bytes", pack.ErrMalformed, status, in.Len())
	}
	return nil, Refusal{reasons[status], string(in.Rest())}
}

// A Refusal is the daemon's answer that it does not do what was asked. The stream
// is in order after it.
type Refusal struct {
	Reason error // ErrRefused, or one of package tee's, such as tee.ErrKeyRequest
	Text   string
}

func (r Refusal) Error() string { return "daemon of the simulated platform: " + r.Text }

// Unwrap returns Reason.
func (r Refusal) Unwrap() error { return r.Reason }

// Loaded is what the daemon measured of a program.
type Loaded struct {
	Identity    tee.Identity
	Development bool              // nobody but the machine's development signer signed it
	Environment map[string]string // its measured configuration
}

// Append appends the encoding of l.
func (l Loaded) Append(dst []byte) []byte {
	dst = appendIdentity(dst, l.Identity)
	dst = pack.AppendBool(dst, l.Development)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(l.Environment)))
	for _, name := range slices.Sorted(maps.Keys(l.Environment)) {
		dst = pack.AppendString(dst, name)
		dst = pack.AppendBytes(dst, []byte(l.Environment[name]))
	}
	return dst
}

// DecodeLoaded reads what Append wrote, and nothing else. Errors:
// pack.ErrMalformed.
func DecodeLoaded(b []byte) (Loaded, error) {
	in := pack.NewReader(b)
	l := Loaded{Identity: readIdentity(in), Development: in.Bool(), Environment: map[string]string{}}
	last := ""
	for i := range in.Count(maxEnvironment, minVariable) {
		name := in.String(maxEnvironment)
		if i > 0 && name <= last {
			in.Fail("variable %q follows %q", name, last)
		}
		l.Environment[name], last = string(in.Bytes(maxEnvironment)), name
	}
	if err := in.Close(); err != nil {
		return Loaded{}, fmt.Errorf("decode identity: %w", err)
	}
	return l, nil
}

// AppendVerified appends who made a local report, and its REPORTDATA.
func AppendVerified(dst []byte, id tee.Identity, data [64]byte) []byte {
	return append(appendIdentity(dst, id), data[:]...)
}

// DecodeVerified reads what AppendVerified wrote, and nothing else. Errors:
// pack.ErrMalformed.
func DecodeVerified(b []byte) (id tee.Identity, data [64]byte, err error) {
	in := pack.NewReader(b)
	id = readIdentity(in)
	in.Array(data[:])
	if err := in.Close(); err != nil {
		return tee.Identity{}, [64]byte{}, fmt.Errorf("decode identity: %w", err)
	}
	return id, data, nil
}

func appendIdentity(dst []byte, id tee.Identity) []byte {
	dst = append(dst, id.Measurement[:]...)
	dst = append(dst, id.Signer[:]...)
	dst = binary.BigEndian.AppendUint16(dst, id.Product)
	dst = binary.BigEndian.AppendUint16(dst, id.SVN)
	return pack.AppendBool(dst, id.Debug)
}

func readIdentity(in *pack.Reader) (id tee.Identity) {
	in.Array(id.Measurement[:])
	in.Array(id.Signer[:])
	id.Product, id.SVN, id.Debug = in.Uint16(), in.Uint16(), in.Bool()
	return id
}
