package provision

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

const formatV1 = 1

// A kind says what a message is. Numbers are transmitted and never change.
type kind uint8

// Requests of the client; the server gives one answer to each, in order.
const (
	_            kind = iota
	heartbeat         // a Report; the answer is status
	getKeys           // the answer is keys or refused
	getManifests      // those after a version; the answer is manifests
	putManifests      // in order; the answer is status
	tellMembers       // the client first; the answer is members
	tellHeads         // of the log of negative facts; the answer is heads
)

// Answers of the server.
const (
	status    kind = 0x81 + iota // a Report
	keys                         // the DomainKey, sealed
	manifests                    // in order, perhaps none, perhaps not all
	refused                      // a reason; nothing else has happened
	members                      // the server first
	heads                        // of the log of negative facts
)

// A reason says why a request was refused. Numbers are transmitted and never
// change.
type reason uint8

const (
	_       reason = iota
	notYet         // the server has no DomainKey at the moment
	removed        // the manifest no longer admits the client
)

// Limits, in bytes.
const (
	maxSealedKeys = 64<<10 + channel.Overhead
	maxManifest   = channel.MaxMessage - 64
	maxList       = channel.MaxMessage // of manifests in a message
)

// A Report is what one side has, in a heartbeat or its answer.
type Report struct {
	Manifest uint64    // version
	Keys     uint32    // newest version of the DomainKey; 0: none
	Floor    time.Time // latest date of what the sender has verified; whole seconds
	// Lease is for how long the sender still has the DomainKey; whole seconds. A
	// client must not keep it longer.
	Lease time.Duration
}

// A message is one of the protocol. Which fields count depends on its kind.
type message struct {
	kind   kind
	report Report   // heartbeat, status
	sealed []byte   // keys
	after  uint64   // getManifests
	files  [][]byte // putManifests, manifests
	reason reason   // refused
	// tellMembers, members: the sender first, and those of whom it knows
	members []overview.Member
	heads   facts.Statement // tellHeads, heads
}

// append encodes m. Layout: docs/provisioning.md#messages.
func (m *message) append(dst []byte) []byte {
	dst = append(dst, formatV1, byte(m.kind))
	switch m.kind {
	case heartbeat, status:
		dst = binary.BigEndian.AppendUint64(dst, m.report.Manifest)
		dst = binary.BigEndian.AppendUint32(dst, m.report.Keys)
		dst = binary.BigEndian.AppendUint64(dst, uint64(m.report.Floor.Unix()))
		dst = binary.BigEndian.AppendUint32(dst, uint32(m.report.Lease/time.Second))
	case keys:
		dst = pack.AppendBytes(dst, m.sealed)
	case getManifests:
		dst = binary.BigEndian.AppendUint64(dst, m.after)
	case putManifests, manifests:
		dst = appendFiles(dst, m.files)
	case refused:
		dst = append(dst, byte(m.reason))
	case tellMembers, members:
		dst = appendMembers(dst, m.members)
	case tellHeads, heads:
		dst = m.heads.Append(dst)
	}
	return dst
}

// decode reads what append wrote, and nothing else. The message shares memory with
// b. Errors: ErrMessage.
func decode(b []byte) (m message, err error) {
	r := pack.NewReader(b)
	if v := r.Uint8(); v != formatV1 {
		r.Fail("format %d is unknown", v)
	}
	m.kind = kind(r.Uint8())
	switch m.kind {
	case heartbeat, status:
		m.report = readReport(r)
	case getKeys:
	case keys:
		m.sealed = r.Bytes(maxSealedKeys)
	case getManifests:
		m.after = r.Uint64()
	case putManifests, manifests:
		m.files = readFiles(r, maxManifest)
	case refused:
		if m.reason = reason(r.Uint8()); m.reason != notYet && m.reason != removed {
			r.Fail("reason %d is unknown", m.reason)
		}
	case tellMembers, members:
		m.members = readMembers(r)
	case tellHeads, heads:
		m.heads = facts.ReadStatement(r)
	default:
		r.Fail("kind %d is unknown", m.kind)
	}
	if err := r.Close(); err != nil {
		return message{}, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	return m, nil
}

func readReport(r *pack.Reader) Report {
	manifest, keys, floor, lease := r.Uint64(), r.Uint32(), r.Int64(), r.Uint32()
	if floor < 0 || floor > maxDate {
		r.Fail("date %d", floor)
	}
	return Report{manifest, keys, time.Unix(floor, 0).UTC(), time.Duration(lease) * time.Second}
}

const maxDate = 253402300799 // 9999-12-31T23:59:59Z

// minFile is the least that a manifest in a list takes: its length.
const minFile = 4

func appendFiles(dst []byte, files [][]byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(files)))
	for _, f := range files {
		dst = pack.AppendBytes(dst, f)
	}
	return dst
}

func readFiles(r *pack.Reader, limit int) [][]byte {
	files := make([][]byte, r.Count(maxChain, minFile))
	for i := range files {
		files[i] = r.Bytes(limit)
	}
	return files
}

// fitting returns as many of files, from the first on, as a message has room for.
func fitting(files [][]byte) [][]byte {
	size := 2 + 4
	for i, f := range files {
		if size += minFile + len(f); size > maxList {
			return files[:i]
		}
	}
	return files
}
