package record

import (
	"encoding/binary"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// SessionState says what an import session is still good for. The zero value is
// invalid.
type SessionState uint8

const (
	_                SessionState = iota
	SessionOpen                   // its key pair unwraps material
	SessionUsed                   // material was imported with it
	SessionExhausted              // too many attempts have failed
)

// ImportSession is the key pair under which the owner of an external key wraps
// the material that he imports. It is a record beside the key, so that neither a
// new session nor the end of one touches the key's material. Its own material is
// the RSA private key in DER (primitive.NewMaterial), which only an open session
// has.
type ImportSession struct {
	Wrapping primitive.Spec // RSA spec of the key pair
	State    SessionState
	Session  [16]byte // random; the import token names it
	Created  int64    // Unix milliseconds
	Expires  int64    // Unix milliseconds
	Failures uint32   // attempts whose material did not unwrap or did not fit
}

const importSessionV1 = 1

// SealImportSession seals a session with its key pair. It refuses what
// OpenImportSession would refuse: a wrapping spec that is not RSA, an unknown
// state, an open session without a key pair and an ended one with one.
func SealImportSession(keys *domainkey.Keyring, h Header, s ImportSession, keyPair secret.Bytes) ([]byte, error) {
	if err := sealable(h, wire.ImportSession, s.validate(keyPair.Len())); err != nil {
		return nil, err
	}
	b := []byte{importSessionV1, byte(s.Wrapping), byte(s.State)}
	b = append(b, s.Session[:]...)
	b = appendInt64s(b, s.Created, s.Expires)
	b = binary.BigEndian.AppendUint32(b, s.Failures)
	return seal(keys, h, b, keyPair)
}

// OpenImportSession opens a session with its key pair. Errors: ErrOpen.
func OpenImportSession(keys *domainkey.Keyring, h Header, sealed []byte) (ImportSession, secret.Bytes, error) {
	var s ImportSession
	if h.ID.Type != wire.ImportSession {
		return s, secret.Bytes{}, fmt.Errorf("%w: %s is no import session", ErrOpen, h.ID)
	}
	attributes, keyPair, err := open(keys, h, sealed)
	if err != nil {
		return s, secret.Bytes{}, err
	}
	r := version(attributes, importSessionV1)
	s.Wrapping, s.State = primitive.Spec(r.Uint8()), SessionState(r.Uint8())
	r.Array(s.Session[:])
	s.Created, s.Expires = r.Int64(), r.Int64()
	s.Failures = r.Uint32()
	if err := finish(r, s.validate(keyPair.Len())); err != nil {
		keyPair.Zero()
		return ImportSession{}, secret.Bytes{}, err
	}
	return s, keyPair, nil
}
