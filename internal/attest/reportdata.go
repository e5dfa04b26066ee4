package attest

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
)

// A Use is what REPORTDATA stands for. Each has a label of its own, so that
// evidence made for one use is refused for every other.
// Registry: docs/formats.md#reportdata.
type Use string

// The registry of uses. Labels are never changed or given another meaning.
const (
	// UseChannel binds a TLS channel between two TEEs. Fields: role, TLS
	// exporter, the peer's nonce, SHA-256 of the own SPKI, SHA-256 of the own
	// HPKE public key, protocol version.
	UseChannel Use = "ehsm/reportdata-channel/v1\x00"
	// UseInstance binds the HPKE key of a core to a client's challenge. Fields:
	// role, challenge, instance id, HPKE public key.
	UseInstance Use = "ehsm/reportdata-instance/v1\x00"
	// UseInstanceKeys is what cores make today: it binds their reply key too.
	// Fields: those of UseInstance, then the Ed25519 key of reply signatures.
	UseInstanceKeys Use = "ehsm/reportdata-instance/v2\x00"
	// UseAcceptance binds what an acceptance run found on its platform. The
	// domain is zero, as the run opens none. Fields: the caller's nonce, SHA-256
	// of the result, the Ed25519 key that signs it; see package acceptance.
	UseAcceptance Use = "ehsm/reportdata-acceptance/v1\x00"
	// UseLocal binds a channel between two TEEs of one machine, in a local
	// report. Fields: those of UseChannel, then SHA-256 of both opening messages,
	// which name both targets.
	UseLocal Use = "ehsm/reportdata-local/v1\x00"
	// UseRestore binds the key to which custodians release their shares of the
	// recovery key. Fields: role, HPKE public key of the session, SHA-256 of the backup,
	// hash of the manifest in force; see package restoration.
	UseRestore Use = "ehsm/reportdata-restore/v1\x00"
	// UseLogin binds the public key of a client that logs in with its own evidence.
	// Fields: tenant, instance id of the core, the core's challenge, kind of the key in
	// one byte, public key. docs/login.md.
	UseLogin Use = "ehsm/reportdata-login/v1\x00"
	// UseTLS binds the TLS key of the manager that shares the core's TEE. Fields: role,
	// instance id, SHA-256 of the SPKI, date in Unix seconds (8 bytes); see package ratls.
	UseTLS Use = "ehsm/reportdata-ratls/v1\x00"
)

// Uses lists the registry.
func Uses() []Use {
	return []Use{UseChannel, UseInstance, UseInstanceKeys, UseAcceptance, UseLocal, UseRestore, UseLogin, UseTLS}
}

// ReportData returns the REPORTDATA of a use: SHA-512 over label, domain id and
// fields, each after its length in four bytes. No caller chooses the bytes that
// the platform signs, and every use binds the domain.
func ReportData(use Use, domain [32]byte, fields ...[]byte) (out [64]byte) {
	h := sha512.New()
	for _, f := range append([][]byte{[]byte(use), domain[:]}, fields...) {
		var size [4]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(f)))
		h.Write(size[:])
		h.Write(f)
	}
	h.Sum(out[:0])
	return out
}

// nativeLabel starts what the second half of a native quote's REPORTDATA hashes.
const nativeLabel = "ehsm-native-quote/v1"

// NativeReportData returns the REPORTDATA of a GenerateQuote answer: SHA-256 of
// the caller's challenge, then SHA-256 of label, domain id and the core
// instance's HPKE public key. It equals no ReportData but by chance (2^-256 for
// a caller that tries many challenges, as half of it cannot be chosen).
func NativeReportData(challenge []byte, domain [32]byte, hpkeKey []byte) (out [64]byte) {
	first := sha256.Sum256(challenge)
	second := sha256.Sum256(append(append([]byte(nativeLabel), domain[:]...), hpkeKey...))
	copy(out[:32], first[:])
	copy(out[32:], second[:])
	return out
}
