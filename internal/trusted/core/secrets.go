package core

import (
	"math"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Limits of secrets, in UTF-16 units.
const (
	maxSecretName  = 64
	maxSecretData  = 4096
	maxDescription = 4096
)

// A rotation interval is from 6 hours to 8760 hours.
const (
	minRotation = 6 * time.Hour
	maxRotation = 8760 * time.Hour
)

// secretActions are the nine actions on secrets.
func secretActions() []*action {
	name := member{name: "secretName", kind: kindText, min: 1, max: maxSecretName}
	data := member{name: "secretData", kind: kindText, min: 1, max: maxSecretData}
	description := member{name: "description", kind: kindText, min: 1, max: maxDescription, optional: true}
	return []*action{
		{name: "CreateSecret", mutates: true, run: (*request).createSecret, members: []member{
			name, data, keyIDMember("encryptionKeyId").opt(), description,
			{name: "rotationInterval", kind: kindInterval, max: math.MaxInt, optional: true}}},
		{name: "UpdateSecretDesc", mutates: true, run: (*request).updateSecretDesc, members: []member{name, description}},
		{name: "PutSecretValue", mutates: true, run: (*request).putSecretValue, members: []member{name, data}},
		{name: "ListSecretVersionIds", run: (*request).listSecretVersionIDs, members: []member{name}},
		{name: "ListSecrets", run: (*request).listSecrets, members: []member{name.opt()}},
		{name: "DescribeSecret", run: (*request).describeSecret, members: []member{name}},
		{name: "DeleteSecret", mutates: true, run: (*request).deleteSecret, members: []member{
			name, {name: "recoveryPeriod", kind: kindInteger, min: 1, max: 365, optional: true},
			member{name: "forceDelete", kind: kindForce, optional: true}.or("force_delete")}},
		{name: "GetSecretValue", discloses: true, run: (*request).getSecretValue, members: []member{
			name, {name: "versionId", kind: kindInteger, min: 1, max: 1 << 53, optional: true}}},
		{name: "RestoreSecret", mutates: true, run: (*request).restoreSecret, members: []member{name}},
	}
}

// isInterval reports whether s matches ^\d{1,4}[dhms]$.
func isInterval(s string) bool {
	if len(s) < 2 || len(s) > 5 || !strings.ContainsRune("dhms", rune(s[len(s)-1])) {
		return false
	}
	for i := range len(s) - 1 {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// interval returns the length of a text that isInterval accepts, 0 for "".
func interval(s string) time.Duration {
	if s == "" {
		return 0
	}
	n := time.Duration(0)
	for _, c := range []byte(s[:len(s)-1]) {
		n = 10*n + time.Duration(c-'0')
	}
	return n * map[byte]time.Duration{'d': 24 * time.Hour, 'h': time.Hour, 'm': time.Minute, 's': time.Second}[s[len(s)-1]]
}

// isForce reports whether v can be the member forceDelete: a boolean, or the text
// of one in any letter case.
func isForce(v canon.Value) bool {
	return v.Kind() == canon.Bool || strings.EqualFold(v.Text(), "true") || strings.EqualFold(v.Text(), "false")
}

// forces reports whether v asks for a deletion at once. Of the texts only one
// does, for old clients: the others are false in any letter case.
func forces(v canon.Value) bool { return v.Bool() || v.Text() == "true" }

func (x *request) secretRecord(name string) wire.RecordID {
	return wire.RecordID{Type: wire.Secret, Tenant: x.tenant, ID: wire.SecretID(x.tenant, name)}
}

// loadSecretRecord returns the record that belongs to a name, also of a secret
// that is gone; nil if there never was one.
func (x *request) loadSecretRecord(name string) (*cached[record.Secret], error) {
	id := x.secretRecord(name)
	x.key = id.ID
	s, err := load(x, x.core.secrets, id, x.core.openSecret)
	if err != nil || s == nil {
		return nil, err
	}
	if s.value.State == record.Active && s.value.Name != name { // check: secret-name
		return nil, errInternal("secret of another name")
	}
	return s, nil
}

// loadSecret returns the secret that the request names, nil if there is none.
func (x *request) loadSecret() (*cached[record.Secret], error) {
	s, err := x.loadSecretRecord(x.payload.text("secretName"))
	if err != nil || s == nil || x.secretGone(&s.value) {
		return nil, err
	}
	return s, nil
}

// secretGone reports whether a secret is deleted for good. When its planned
// deletion is due it is, whether the host has had it purged or not.
func (x *request) secretGone(s *record.Secret) bool {
	if s.State != record.Active { // check: secret-state
		return true
	}
	if s.Planned != 0 && x.millis() >= s.Planned { // check: secret-due
		return true
	}
	return false
}

func (c *Core) openSecret(h record.Header, sealed []byte) (record.Secret, error) {
	return record.OpenSecret(c.keys, h, sealed)
}

// writeSecret adds the record of a secret to the writes. revision is the one it
// replaces, 0 for a new name.
func (x *request) writeSecret(id wire.RecordID, revision uint64, s record.Secret) error {
	s.Modified = x.millis()
	sealed, err := record.SealSecret(x.core.keys, record.Header{ID: id, Revision: revision + 1}, s)
	if err != nil {
		return errInternal("seal secret")
	}
	w := wire.Write{
		ID: id, Expected: revision, Revision: revision + 1,
		Hidden: s.State != record.Active, Due: s.Planned, Sealed: sealed,
	}
	x.write(w)
	x.onStored = append(x.onStored, func() { x.core.secrets.put(id, w.Revision, w.Tag(), s) })
	return nil
}

// createSecret makes a secret with its first version. The name of one that is
// gone is free again: the new one is another incarnation in the same record.
func (x *request) createSecret() (result, error) {
	name := x.payload.text("secretName")
	id, keyID := x.secretRecord(name), x.chosenKey()
	if err := x.require(id, keyID); err != nil {
		return result{}, err
	}
	old, err := x.loadSecretRecord(name)
	if err != nil {
		return result{}, err
	}
	if old != nil && !x.secretGone(&old.value) { // check: secret-taken
		return result{}, bad("Secret name already exists, cannot use the same secret name", "secret exists")
	}
	k, err := x.loadChosenKey(keyID)
	if err != nil {
		return result{}, err
	}
	if err := x.reserveSecret(); err != nil {
		return result{}, err
	}
	now := x.millis()
	s := record.Secret{
		State: record.Active, Created: now, Incarnation: wire.NewUUID(), Key: keyID.ID,
		Interval: x.payload.text("rotationInterval"), Name: name, Description: x.payload.text("description"),
	}
	if n := interval(s.Interval); s.Interval != "" && (n < minRotation || n > maxRotation) {
		return result{}, bad("The rotation time is less than 6 hours or more than 8760 hours", "rotation interval")
	}
	if err := x.writeValue(&s, k); err != nil {
		return result{}, err
	}
	revision := uint64(0)
	if old != nil {
		revision = old.revision
		x.removeVersions(&old.value)
	}
	return result{message: "The " + name + " create success."}, x.writeSecret(id, revision, s)
}

// chosenKey names the key of a new secret: the one in the request, or the
// tenant's default key.
func (x *request) chosenKey() wire.RecordID {
	if id, ok := x.keyRecord(x.payload.text("encryptionKeyId")); ok {
		return id
	}
	id := wire.RecordID{Type: wire.Key, Tenant: x.tenant}
	if x.payload.text("encryptionKeyId") == "" {
		id.ID = x.app.value.DefaultKey
	}
	return id
}

// loadChosenKey returns the key of a new secret for use.
func (x *request) loadChosenKey(id wire.RecordID) (*cached[record.Key], error) {
	byDefault := x.payload.text("encryptionKeyId") == ""
	k, err := x.loadKeyRecord(id)
	switch {
	case err != nil:
		return nil, err
	case k == nil && byDefault:
		return nil, errNoDefaultKey()
	case k == nil:
		return nil, bad("Cannot find cmk by keyid.", "no such key")
	case k.value.Default != byDefault: // check: secret-default-key
		return nil, bad("Cannot find cmk by keyid.", "no such key")
	}
	return k, x.permits(&k.value, true)
}

func errNoDefaultKey() *refusal { return bad("Cannot find default CMK.", "no default key") }

func (x *request) updateSecretDesc() (result, error) {
	s, err := x.loadSecret()
	switch {
	case err != nil:
		return result{}, err
	case s == nil:
		return result{}, bad("Cannot find secretName", "no such secret")
	case s.value.Planned != 0: // check: secret-deleted-update
		return result{}, bad("Can not modify a deleted secret.", "secret deleted")
	}
	next := s.value
	next.Description = x.payload.text("description")
	return result{message: "Update secret description success."}, x.writeSecret(s.id, s.revision, next)
}

// putSecretValue makes a new version and the current one. Concurrent ones meet at
// the secret's record, of which only one can store the next revision.
func (x *request) putSecretValue() (result, error) {
	s, err := x.loadSecret()
	switch {
	case err != nil:
		return result{}, err
	case s == nil:
		return result{}, bad("Can not find secretName", "no such secret")
	case s.value.Planned != 0: // check: secret-deleted-put
		return result{}, bad("Can not put value for a deleted secret.", "secret deleted")
	}
	next := s.value
	if err := x.require(valueRecord(s, next.Current), x.keyOf(&next)); err != nil {
		return result{}, err
	}
	previous, err := x.loadValue(s, next.Current)
	if err != nil {
		return result{}, err
	}
	if previous == nil {
		return result{}, bad("Current secretname cannot find previous version", "previous version is missing")
	}
	k, err := x.loadKeyOf(next.Key, true)
	if err != nil {
		return result{}, err
	}
	if err := x.writeValue(&next, k); err != nil {
		return result{}, err
	}
	next.Rotated = x.millis()
	return result{message: "The " + next.Name + " new version put success."}, x.writeSecret(s.id, s.revision, next)
}
