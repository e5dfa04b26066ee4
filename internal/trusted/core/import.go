package core

import (
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"sync/atomic"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	sessionMillis = 24 * 60 * 60 * 1000 // how long material can be imported
	// maxImportFailures is how often material may fail to unwrap in one session:
	// each failure tells whether a PKCS#1 v1.5 padding was good.
	maxImportFailures = 10
)

// openSession is an import session ready for use.
type openSession struct {
	record.ImportSession
	keyPair secret.Bytes
	// attempts are those since this state was opened that have failed or are
	// under way. The host cannot make them undone by not storing the count.
	attempts atomic.Uint32
}

// attempt takes one of the attempts that are left. One that was no failure is to
// be given back.
func (s *openSession) attempt() bool {
	if s.Failures+s.attempts.Add(1) > maxImportFailures {
		s.giveBack()
		return false
	}
	return true
}

func (s *openSession) giveBack() { s.attempts.Add(^uint32(0)) }

// sessionRecord names the import session of a key.
func sessionRecord(key wire.RecordID) wire.RecordID {
	return wire.RecordID{Type: wire.ImportSession, Tenant: key.Tenant, ID: key.ID}
}

// loadSession returns the newest import session of a key, nil if there was none.
func (x *request) loadSession(key wire.RecordID) (*cached[*openSession], error) {
	return load(x, x.core.sessions, sessionRecord(key), func(h record.Header, sealed []byte) (*openSession, error) {
		s, keyPair, err := record.OpenImportSession(x.core.keys, h, sealed)
		return &openSession{ImportSession: s, keyPair: keyPair}, err
	})
}

// writeSession adds a session to the writes. revision is the one it replaces, 0
// for the first session of a key.
func (x *request) writeSession(key wire.RecordID, revision uint64, s record.ImportSession, keyPair secret.Bytes) error {
	id := sessionRecord(key)
	sealed, err := record.SealImportSession(x.core.keys, record.Header{ID: id, Revision: revision + 1}, s, keyPair)
	if err != nil {
		return errInternal("seal import session")
	}
	w := wire.Write{ID: id, Expected: revision, Revision: revision + 1, Sealed: sealed}
	x.write(w)
	x.onStored = append(x.onStored, func() {
		x.core.sessions.put(id, w.Revision, w.Tag(), &openSession{ImportSession: s, keyPair: keyPair})
	})
	return nil
}

// getParametersForImport opens an import session in place of the last one. What
// was imported before is in other records and stays as it is.
func (x *request) getParametersForImport() (result, error) {
	k, err := x.usableKey(false)
	if err != nil {
		return result{}, err
	}
	if k.value.Origin != record.External { // check: import-origin
		return result{}, errServer("key origin")
	}
	spec, _ := primitive.ParseSpec(x.payload.text("keyspec")) // validated
	if !spec.RSA() {
		return result{}, errServer("wrapping spec")
	}
	last, err := x.loadSession(k.id)
	if err != nil {
		return result{}, err
	}
	keyPair, public, err := x.newKeyPair(spec)
	if err != nil {
		return result{}, err
	}
	token, err := x.openSession(k.id, last, spec, keyPair)
	if err != nil {
		return result{}, err
	}
	return result{textSuccess, object{}.text("pubkey", public).text("importToken", token.text()).end()}, nil
}

// newKeyPair makes the key pair of a session and returns its public half in PEM.
func (x *request) newKeyPair(spec primitive.Spec) (secret.Bytes, string, error) {
	keyPair, err := x.core.generators.material(spec)
	if r := (*refusal)(nil); errors.As(err, &r) {
		return keyPair, "", err
	}
	var private *primitive.Private
	if err == nil {
		private, err = primitive.OpenPrivate(spec, keyPair)
	}
	var public string
	if err == nil {
		public, err = private.PublicPEM()
	}
	if err != nil {
		return secret.Bytes{}, "", errParameters("key pair")
	}
	return keyPair, public, nil
}

// openSession adds a new session to the writes and returns its token.
func (x *request) openSession(key wire.RecordID, last *cached[*openSession], spec primitive.Spec, keyPair secret.Bytes) (importToken, error) {
	s := record.ImportSession{
		Wrapping: spec, State: record.SessionOpen, Created: x.millis(), Expires: x.millis() + sessionMillis,
	}
	rand.Read(s.Session[:]) // never fails
	token, err := x.core.newToken(key, &s)
	if err != nil {
		return token, errParameters("import token")
	}
	revision := uint64(0)
	if last != nil {
		revision = last.revision
	}
	return token, x.writeSession(key, revision, s, keyPair)
}

func (x *request) importKeyMaterial() (result, error) {
	k, err := x.usableKey(false)
	if err != nil {
		return result{}, err
	}
	s, err := x.tokenSession(k.id)
	if err != nil {
		return result{}, err
	}
	p, _ := primitive.ParsePadding(x.payload.text("padding_mode")) // validated
	if p != primitive.PaddingPKCS1 && p != primitive.PaddingOAEP {
		return result{}, errImport("padding does not encrypt")
	}
	if x.core.paddingOff(p) { // check: import-padding-off
		return result{}, errImport("padding is switched off")
	}
	private, err := primitive.OpenPrivate(s.value.Wrapping, s.value.keyPair)
	if err != nil {
		return result{}, errImport("key pair")
	}
	if !s.value.attempt() { // check: import-attempts
		return result{}, errToken("import session has failed too often")
	}
	b, err := private.Decrypt(x.payload.bytes("key_material"), p)
	material := secret.New(b)
	defer material.Zero()
	if err != nil || !x.takes(k, material) {
		return result{}, x.failedImport(k.id, s)
	}
	s.value.giveBack()
	if err := x.storeMaterial(k, material); err != nil {
		return result{}, err
	}
	ended := s.value.ImportSession
	ended.State = record.SessionUsed
	if err := x.writeSession(k.id, s.revision, ended, secret.Bytes{}); err != nil {
		return result{}, err
	}
	return result{textSuccess, object{}.boolean("result", true).end()}, nil
}

// tokenSession returns the session that the request's import token is for.
func (x *request) tokenSession(key wire.RecordID) (*cached[*openSession], error) {
	t, err := parseToken(x.payload.text("importToken"))
	if err != nil {
		return nil, errToken("import token malformed")
	}
	if t.dkVersion <= x.core.terms.Load().settings.DomainKeyVersion() { // any number can be written into a token
		if err := x.core.lacks(t.dkVersion); err != nil {
			return nil, err
		}
	}
	if !x.core.genuine(key, t) { // check: token-mac
		return nil, errToken("import token not genuine")
	}
	if x.millis() >= t.expires { // check: token-expiry
		return nil, errTokenExpired()
	}
	s, err := x.loadSession(key)
	switch {
	case err != nil:
		return nil, err
	case s == nil:
		return nil, errToken("no import session")
	case s.value.Session != t.session: // check: token-session
		return nil, errToken("import session was replaced")
	case s.value.State != record.SessionOpen: // check: session-open
		return nil, errToken("import session has ended")
	}
	return s, nil
}

// takes reports whether unwrapped material can become, or is, that of a key.
func (x *request) takes(k *cached[record.Key], material secret.Bytes) bool {
	if material.Len() != k.value.Spec.MaterialLen() { // check: material-length
		return false
	}
	if k.value.Primary == 0 {
		return true
	}
	stated, _ := k.value.Version(k.value.Primary)
	id := wire.RecordID{Type: wire.KeyVersion, Tenant: k.id.Tenant, ID: k.id.ID, Version: k.value.Primary}
	v := record.KeyVersion{Spec: k.value.Spec, Usage: k.value.Usage, Origin: k.value.Origin}
	digest := record.VersionDigest(id, v, material)
	if !hmac.Equal(digest[:], stated.Digest[:]) { // check: same-material
		return false
	}
	return true
}

// storeMaterial adds a key with its first material to the writes. A key that has
// material keeps it: takes has found it to be the same.
func (x *request) storeMaterial(k *cached[record.Key], material secret.Bytes) error {
	x.keyVersion = max(1, k.value.Primary)
	if k.value.Primary != 0 { // check: import-once
		return nil
	}
	next := k.value
	next.State = record.Active
	if err := x.writeVersion(k.id.ID, &next, 1, material); err != nil {
		return err
	}
	return x.writeKey(k.id, k.revision, next)
}

// failedImport counts an attempt in the session's record. The refusal, one for
// all causes, is released when the count is stored.
func (x *request) failedImport(key wire.RecordID, s *cached[*openSession]) error {
	next, keyPair := s.value.ImportSession, s.value.keyPair
	next.Failures += s.value.attempts.Load()
	if next.Failures >= maxImportFailures { // check: import-failures
		next.State, keyPair = record.SessionExhausted, secret.Bytes{}
	}
	if err := x.writeSession(key, s.revision, next, keyPair); err != nil {
		return err
	}
	return errMaterial()
}
