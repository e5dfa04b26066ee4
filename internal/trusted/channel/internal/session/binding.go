package session

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Labels of hashes. Those of exporters are made by label.
const (
	openingLabel    = "ehsm/channel-opening/v1\x00"
	transcriptLabel = "ehsm/channel-transcript/v1\x00"
	acceptedLabel   = "ehsm/channel-accepted/v1\x00"
	sealLabel       = "ehsm/channel-seal/v1\x00"
)

// What exporters are for; see label.
const (
	forEvidence = "evidence"
	forAgain    = "again" // evidence of an open channel
	forAccepted = "accepted"
	forSeal     = "seal"
)

// label names an exporter (RFC 8446, section 7.5) of one protocol, purpose, side
// and role. Values for one side, or role, are never those of another.
func label(k Kind, purpose string, s Side, r Role) string {
	l := "EXPORTER-" + k.Name + " " + purpose + " " + s.String()
	if r != "" {
		l += " " + string(r)
	}
	return l
}

// A binding is all that evidence stands for.
type binding struct {
	domain   [32]byte
	role     Role     // of who proves
	exporter [32]byte // with the label of who proves and the verifier's nonce
	nonce    [32]byte // of the verifier
	spki     [32]byte // SHA-256 of the key of who proves
	hpkeKey  [32]byte // SHA-256
	opening  [32]byte // see opening; bound if Kind.Open
}

// reportData is the REPORTDATA of a binding. Layout: docs/formats.md#reportdata.
func (b *binding) reportData(k Kind) [64]byte {
	fields := [][]byte{
		[]byte(b.role), b.exporter[:], b.nonce[:], b.spki[:], b.hpkeKey[:],
		binary.BigEndian.AppendUint16(nil, protocolVersion),
	}
	if k.Open {
		fields = append(fields, b.opening[:])
	}
	return attest.ReportData(k.Use, b.domain, fields...)
}

// digest is SHA-256 over a label and parts, each part after its length.
func digest(label string, parts ...[]byte) [32]byte {
	b := []byte(label)
	for _, p := range parts {
		b = pack.AppendBytes(b, p)
	}
	return sha256.Sum256(b)
}

// acceptance is the message that one side sends when it has accepted the other.
func acceptance(key [32]byte, s Side, transcript [32]byte) [32]byte {
	m := hmac.New(sha256.New, key[:])
	m.Write([]byte(acceptedLabel))
	m.Write([]byte{byte(s)})
	m.Write(transcript[:])
	return [32]byte(m.Sum(nil))
}

// sealInfo is the info of HPKE for a message to one side.
func sealInfo(domain [32]byte, to Side, exporter [32]byte, label string) []byte {
	b := append([]byte(sealLabel), domain[:]...)
	b = append(b, byte(to))
	b = append(b, exporter[:]...)
	return pack.AppendString(b, label)
}
