// Package trail is the audit trail: its entries, the chain and the signatures
// that hold them together, the frames of the spool files, and the verifier that
// an auditor runs over copies of those files.
//
// A core instance, one start of the core, writes one trail. Its entries are
// numbered from 1 without a gap; the first names the key that the instance made
// for its trail, vouched for by the domain key. Every entry has a chain value,
// which depends on all entries before it. Checkpoint entries sign the chain, so
// the files may lie anywhere and pass through anyone's hands. Nothing in a
// trail is secret, and nothing in it is a payload.
//
// Entry, format 1, big endian:
//
//	format 1 | kind 1 | sequence 8 | time 8 | instance 16 | fields of the kind
//	  start:      domain 32 | public key 32 | endorsement 64 | platform
//	  request:    request id | tenant 16 | action | key 16 | key version 4 | code 2 | reason
//	  checkpoint: head 32 | signature 64
//	  aborted:    of 8
//
// Texts have a two-byte length. Frame: length of the entry 4 | entry | chain
// value 32.
package trail

import (
	"encoding/binary"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Limits of an entry, in bytes.
const (
	MaxText  = wire.MaxName // of each text field
	MaxEntry = 512          // of an encoded entry; the longest, a request, has 462
	minEntry = headSize + 8 // an aborted entry
	headSize = 1 + 1 + 8 + 8 + 16
)

const formatV1 = 1

// Kind is what an entry records. Numbers are persisted and never change; the
// zero value is invalid.
type Kind uint8

const (
	_          Kind = iota
	Start           // the instance began; always its entry 1
	Request         // a request was decided, with what outcome
	Checkpoint      // the chain up to the entry before it is signed
	Aborted         // the writes of an earlier request entry were not stored
)

// String names the kind for reports.
func (k Kind) String() string {
	switch k {
	case Start:
		return "start"
	case Request:
		return "request"
	case Checkpoint:
		return "checkpoint"
	case Aborted:
		return "aborted"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// An Entry is one fact that a core instance recorded. Only the fields of its
// kind are encoded. Text fields hold any bytes, some of them chosen by clients:
// quote them when printing.
type Entry struct {
	Kind     Kind
	Sequence uint64    // from 1, per instance
	Time     int64     // Unix microseconds, the TEE's time
	Instance wire.UUID // the start of the core that wrote it

	// Of a start entry: the instance's key, and who vouches for it.
	Domain      [32]byte // domain id
	PublicKey   [32]byte // Ed25519; signs this instance's checkpoints
	Endorsement [64]byte // by the domain key, over EndorsementMessage
	Platform    string   // kind of TEE, such as "sim"

	// Of a request entry.
	RequestID  string    // chosen by the manager
	Tenant     wire.UUID // zero if the request named none
	Action     string    // as in the URL
	Key        wire.UUID // zero if the action has none
	KeyVersion uint32    // that was used, or 0
	Code       uint16    // of the reply
	Reason     string    // a token such as "ok" or "sign error", never a payload

	// Of a checkpoint entry.
	Head      [32]byte // chain value of the entry before it
	Signature [64]byte // by the instance's key, over CheckpointMessage

	// Of an aborted entry: sequence number of the request entry.
	Of uint64
}

// Append appends the encoding of e, at most MaxEntry bytes. Texts are cut at
// MaxText bytes. It does not allocate if dst has room. An entry that Parse
// would refuse, as one of an unknown kind, is a bug of the caller's.
func (e *Entry) Append(dst []byte) []byte {
	dst = append(dst, formatV1, byte(e.Kind))
	dst = binary.BigEndian.AppendUint64(dst, e.Sequence)
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.Time))
	dst = append(dst, e.Instance[:]...)
	switch e.Kind {
	case Start:
		dst = append(dst, e.Domain[:]...)
		dst = append(dst, e.PublicKey[:]...)
		dst = append(dst, e.Endorsement[:]...)
		dst = appendText(dst, e.Platform)
	case Request:
		dst = appendText(dst, e.RequestID)
		dst = append(dst, e.Tenant[:]...)
		dst = appendText(dst, e.Action)
		dst = append(dst, e.Key[:]...)
		dst = binary.BigEndian.AppendUint32(dst, e.KeyVersion)
		dst = binary.BigEndian.AppendUint16(dst, e.Code)
		dst = appendText(dst, e.Reason)
	case Checkpoint:
		dst = append(dst, e.Head[:]...)
		dst = append(dst, e.Signature[:]...)
	case Aborted:
		dst = binary.BigEndian.AppendUint64(dst, e.Of)
	}
	return dst
}

func appendText(dst []byte, s string) []byte {
	return pack.AppendString(dst, s[:min(len(s), MaxText)])
}

// Parse reads what Append wrote and nothing else. Errors wrap
// pack.ErrMalformed. It checks form, not truth: see Verify.
func Parse(b []byte) (Entry, error) {
	r := pack.NewReader(b)
	if v := r.Uint8(); r.Err() == nil && v != formatV1 {
		r.Fail("entry format %d is unknown", v)
	}
	e := Entry{Kind: Kind(r.Uint8()), Sequence: r.Uint64(), Time: r.Int64()}
	r.Array(e.Instance[:])
	if e.Sequence == 0 {
		r.Fail("sequence number is 0")
	}
	parseFields(r, &e)
	if err := r.Close(); err != nil {
		return Entry{}, fmt.Errorf("parse audit entry: %w", err)
	}
	return e, nil
}

// Peek reads the instance and the sequence number of an encoded entry, and does
// not look at the rest. It reports false for what no entry begins with.
func Peek(b []byte) (instance wire.UUID, sequence uint64, ok bool) {
	if len(b) < headSize || b[0] != formatV1 {
		return instance, 0, false
	}
	copy(instance[:], b[headSize-len(instance):])
	return instance, binary.BigEndian.Uint64(b[2:]), true
}

func parseFields(r *pack.Reader, e *Entry) {
	switch e.Kind {
	case Start:
		r.Array(e.Domain[:])
		r.Array(e.PublicKey[:])
		r.Array(e.Endorsement[:])
		e.Platform = r.String(MaxText)
	case Request:
		e.RequestID = r.String(MaxText)
		r.Array(e.Tenant[:])
		e.Action = r.String(MaxText)
		r.Array(e.Key[:])
		e.KeyVersion = r.Uint32()
		e.Code = r.Uint16()
		e.Reason = r.String(MaxText)
	case Checkpoint:
		r.Array(e.Head[:])
		r.Array(e.Signature[:])
	case Aborted:
		if e.Of = r.Uint64(); e.Of == 0 || e.Of >= e.Sequence {
			r.Fail("entry %d aborts entry %d", e.Sequence, e.Of)
		}
	default:
		r.Fail("entry %s is unknown", e.Kind)
	}
}
