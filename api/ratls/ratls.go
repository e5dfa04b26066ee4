// Package ratls is the form of certificates with evidence (RA-TLS): what a core says
// of the TLS key of the manager that shares its TEE, in the X.509 extension that TCG DICE
// has for evidence. Layout: docs/formats.md#ratls-v1.
//
// The package decides nothing: who reads a statement has to verify its evidence.
package ratls

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	// MediaType is that of a statement in its wrapper.
	MediaType = "application/vnd.ehsm-kms.ratls-v1"
	// MaxEvidence is the longest evidence, in bytes.
	MaxEvidence = 64 << 10
	// MaxAge is for how long a statement counts.
	MaxAge = 24 * time.Hour
)

const (
	formatV1 = 1
	head     = 1 + 32 + 16 + 8 + 4 // bytes before the evidence
)

// Errors of FromCertificate and Decode.
var (
	// ErrNone says that a certificate has no evidence.
	ErrNone = errors.New("certificate has no evidence")
	// ErrMalformed says that a statement or its wrapper is none.
	ErrMalformed = errors.New("malformed statement of a TLS key")
)

// ID names the extension, tcg-dice-conceptual-message-wrapper.
func ID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 23, 133, 5, 4, 9} }

// A Statement is what a core says of a TLS key. The evidence binds all of it and the
// key.
type Statement struct {
	Domain   [32]byte // id of the core's domain
	Instance [16]byte // UUID of this start of the core
	Date     int64    // when it was made, Unix seconds
	Evidence []byte   // as GetEvidence has it, 1 to MaxEvidence bytes
}

// Append appends the encoding of s.
func (s *Statement) Append(dst []byte) []byte {
	dst = append(append(append(dst, formatV1), s.Domain[:]...), s.Instance[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Date))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(s.Evidence)))
	return append(dst, s.Evidence...)
}

// Decode reads what Append writes. Errors: ErrMalformed.
func Decode(b []byte) (*Statement, error) {
	if len(b) <= head || b[0] != formatV1 {
		return nil, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	s := &Statement{Domain: [32]byte(b[1:]), Instance: [16]byte(b[33:]), Date: int64(binary.BigEndian.Uint64(b[49:])), Evidence: b[head:]}
	if n := binary.BigEndian.Uint32(b[57:]); uint64(n) != uint64(len(s.Evidence)) || n > MaxEvidence {
		return nil, fmt.Errorf("%w: %d bytes of evidence, it says %d", ErrMalformed, len(s.Evidence), n)
	}
	if s.Date < 0 {
		return nil, fmt.Errorf("%w: date %d", ErrMalformed, s.Date)
	}
	return s, nil
}

// Heads of CBOR: an array of two, a text, and byte strings with a length of 2 and of 4
// bytes.
const (
	cborPair    = 0x82
	cborText8   = 0x78
	cborBytes16 = 0x59
	cborBytes32 = 0x5a
)

// Extension wraps an encoded statement, at least 256 bytes, for a certificate: a RATS
// conceptual message in CBOR, [media type, bytes].
func Extension(statement []byte) pkix.Extension {
	b := append([]byte{cborPair, cborText8, byte(len(MediaType))}, MediaType...)
	if n := len(statement); n < 1<<16 {
		b = binary.BigEndian.AppendUint16(append(b, cborBytes16), uint16(n))
	} else {
		b = binary.BigEndian.AppendUint32(append(b, cborBytes32), uint32(n))
	}
	return pkix.Extension{Id: ID(), Value: append(b, statement...)}
}

// FromCertificate returns the statement in a certificate. It says nothing before its
// evidence was verified. Errors: ErrNone, ErrMalformed.
func FromCertificate(c *x509.Certificate) (*Statement, error) {
	var found *pkix.Extension
	for i := range c.Extensions {
		if e := &c.Extensions[i]; e.Id.Equal(ID()) {
			if found != nil {
				return nil, fmt.Errorf("%w: two of them", ErrMalformed)
			}
			found = e
		}
	}
	if found == nil {
		return nil, ErrNone
	}
	for _, n := range []int{1 << 8, 1 << 16} { // least length in either form
		empty := Extension(make([]byte, n)).Value
		at := len(empty) - n
		size := at - 4 - len(MediaType) // bytes of the length
		if len(found.Value) <= at || !bytes.Equal(found.Value[:at-size], empty[:at-size]) {
			continue
		}
		statement := found.Value[at:]
		if len(statement) < n || !bytes.Equal(Extension(statement).Value[:at], found.Value[:at]) {
			break
		}
		return Decode(statement)
	}
	return nil, fmt.Errorf("%w: not %s in CBOR", ErrMalformed, MediaType)
}

// KeyHash is what evidence binds of a TLS key: SHA-256 of the certificate's
// SubjectPublicKeyInfo in DER.
func KeyHash(c *x509.Certificate) [32]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }
