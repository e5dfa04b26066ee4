package core

import (
	"cmp"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Names of the native API.
const (
	originInternal = "EH_INTERNAL_KEY"
	originExternal = "EH_EXTERNAL_KEY"
	usageEncrypt   = "EH_KEYUSAGE_ENCRYPT_DECRYPT"
	usageSign      = "EH_KEYUSAGE_SIGN_VERIFY"
)

// farFuture is the expireTime of a key that does not expire: the end of the
// year 9999, in Unix milliseconds.
const farFuture = 253402300799000

func (x *request) createKey() (result, error) {
	spec, _ := primitive.ParseSpec(x.payload.text("keyspec")) // validated
	usage := map[string]record.Usage{usageEncrypt: record.EncryptDecrypt, usageSign: record.SignVerify}[x.payload.text("keyusage")]
	if x.core.specOff(spec) { // check: spec-off
		return result{}, errServer("key spec is switched off")
	}
	if !usable(spec, usage) { // check: spec-usage
		return result{}, errServer("key usage")
	}
	paddings, err := x.newPaddings(spec, usage)
	if err != nil {
		return result{}, err
	}
	if err := x.reserveKey(); err != nil {
		return result{}, err
	}
	now := x.millis()
	k := record.Key{
		Spec: spec, Usage: usage, Origin: record.Internal, State: record.Active, Paddings: paddings,
		Created: now, Modified: now, Generation: x.app.value.Generation,
	}
	id := wire.NewUUID()
	if x.payload.text("origin") == originExternal {
		if !spec.Symmetric() { // check: importable
			return result{}, errServer("key cannot be imported")
		}
		k.Origin, k.State = record.External, record.PreActivation
	} else if err := x.firstVersion(id, &k); err != nil {
		return result{}, err
	}
	if err := x.writeKey(wire.RecordID{Type: wire.Key, Tenant: x.tenant, ID: id}, 0, k); err != nil {
		return result{}, err
	}
	x.key = id
	return result{textSuccess, object{}.text("keyid", id.String()).end()}, nil
}

// usable reports whether keys of a spec exist with a usage.
func usable(s primitive.Spec, u record.Usage) bool {
	switch {
	case s.Symmetric():
		return u == record.EncryptDecrypt
	case s == primitive.HMAC:
		return u == record.SignVerify
	}
	return s.Asymmetric() && (u == record.EncryptDecrypt || u == record.SignVerify)
}

// firstVersion makes the material of a new key and adds its record to the
// writes.
func (x *request) firstVersion(id wire.UUID, k *record.Key) error {
	material, err := x.core.generators.material(k.Spec)
	if err != nil {
		return notRefusal(err, "key generation")
	}
	return x.writeVersion(id, k, 1, material)
}

// writeVersion adds a key version to the writes and makes it k's primary.
func (x *request) writeVersion(key wire.UUID, k *record.Key, number uint32, material secret.Bytes) error {
	id := wire.RecordID{Type: wire.KeyVersion, Tenant: x.tenant, ID: key, Version: number}
	v := record.KeyVersion{Spec: k.Spec, Usage: k.Usage, Origin: k.Origin, Created: x.millis()}
	sealed, err := record.SealKeyVersion(x.core.keys, record.Header{ID: id, Revision: 1}, v, material)
	if err != nil {
		return errInternal("seal key version")
	}
	k.Versions = append(k.Versions, record.Version{
		Number: number, State: record.Active, Created: v.Created, Digest: record.VersionDigest(id, v, material),
	})
	k.Primary = number
	x.write(wire.Write{ID: id, Revision: 1, Sealed: sealed})
	return nil
}

// writeKey adds a key record to the writes. revision is the one it replaces, 0
// for a new key.
func (x *request) writeKey(id wire.RecordID, revision uint64, k record.Key) error {
	k.Modified = x.millis()
	sealed, err := record.SealKey(x.core.keys, record.Header{ID: id, Revision: revision + 1}, k)
	if err != nil {
		return errInternal("seal key")
	}
	w := wire.Write{ID: id, Expected: revision, Revision: revision + 1, Hidden: k.Deleted != 0 || k.Default, Primary: k.Primary, Due: x.keyDue(&k), Sealed: sealed}
	x.write(w)
	x.onStored = append(x.onStored, func() { x.core.cmks.put(id, w.Revision, w.Tag(), k) })
	return nil
}

func (x *request) write(w wire.Write) { x.writes = append(x.writes, w) }

// disableKey suspends a key, also one that is suspended already: the new
// revision supersedes whatever the host holds of it that was never confirmed,
// such as the answer to an EnableKey that it let time out.
func (x *request) disableKey() (result, error) {
	k, err := x.ownKey()
	if err != nil {
		return result{}, err
	}
	next := k.value
	switch next.State {
	case record.Active, record.PreActivation, record.Suspended:
		next.State = record.Suspended
	default:
		return result{}, x.action.storageError() // there is no way back to such a state
	}
	return result{message: textSuccessful}, x.narrowing(x.writeKey(k.id, k.revision, next))
}

// enableKey ends a suspension. A key without material returns to waiting for it.
func (x *request) enableKey() (result, error) {
	k, err := x.ownKey()
	if err != nil {
		return result{}, err
	}
	next := k.value
	if next.State != record.Suspended { // check: only-suspended
		return result{message: textSuccessful}, nil // it is so already
	}
	next.State = record.Active
	if next.Primary == 0 {
		next.State = record.PreActivation
	}
	return result{message: textSuccessful}, x.writeKey(k.id, k.revision, next)
}

// ownKey returns the key to enable or disable.
func (x *request) ownKey() (*cached[record.Key], error) {
	k, err := x.loadKey(x.payload.text("keyid"))
	if err == nil && k == nil {
		err = errNoKey()
	}
	return k, err
}

// deleteKey marks a key. It is unusable and unlisted from now on, and its
// material stays until the waiting window has passed. A key that the store is
// said not to have is gone for this core as well: it must not come back after
// its owner was told that it is deleted.
func (x *request) deleteKey() (result, error) {
	text := x.payload.text("keyid")
	k, err := x.loadKey(text)
	if err != nil {
		return result{}, err
	}
	if k != nil {
		if k.value.Protected { // check: protected-delete
			return result{}, errProtected()
		}
		next := k.value
		next.Deleted = x.millis()
		return result{message: textSuccessful}, x.narrowing(x.writeKey(k.id, k.revision, next))
	}
	if id, ok := x.keyRecord(text); ok && x.ref(id).Revision == 0 {
		x.onStored = append(x.onStored, func() { x.core.seen.bury(id) })
	}
	return result{message: textSuccessful}, nil
}

// deleteAllKey starts a new generation in the app record, which deletes all
// keys of earlier ones at once. A sweep writes it into the single records later.
func (x *request) deleteAllKey() (result, error) {
	next := x.app.value.App
	next.Generation++
	next.GenerationAt = x.millis()
	return result{message: textSuccessful}, x.narrowing(x.writeApp(next, x.app.value.texts(), true))
}

// writeApp adds the app record to the writes, with the texts of its API keys. A
// sweep writes its generation into the keys later.
func (x *request) writeApp(next record.App, texts []secret.Bytes, sweep bool) error {
	return x.replaceApp(x.app, next, texts, sweep)
}

// listKey lists the tenant's keys, oldest first. The host answers the query and
// can leave keys out; it cannot add, alter or bring back any that this core has
// seen changed.
func (x *request) listKey() (result, error) {
	q := wire.Query{Type: wire.Key, Tenant: x.tenant, Limit: wire.MaxList}
	x.query = &q
	if !x.call.Listed {
		return result{}, &needError{list: &q}
	}
	keys, err := x.openListing()
	if err != nil {
		return result{}, err
	}
	if err := x.listAgain(q); err != nil {
		return result{}, err
	}
	slices.SortFunc(keys, func(a, b *cached[record.Key]) int {
		return cmp.Or(cmp.Compare(a.value.Created, b.value.Created), cmp.Compare(a.id.ID.String(), b.id.ID.String()))
	})
	list := []byte{'['}
	for i, k := range keys {
		if i > 0 {
			list = append(list, ',')
		}
		list = append(list, describe(k)...)
	}
	o := object{}.key("list")
	o = append(append(o, list...), ']')
	return result{textSuccessful, o.end()}, nil
}

// maxListAgain is how often a listing that was overtaken is asked for anew.
const maxListAgain = 2

// listAgain asks for the listing anew if the core held a newer state of one of its
// keys: beside that, a change that another node made before may be missing. Each
// time one key more is asked for by name, which is how the core knows how often it
// has asked. In the end the mixture will do: it has nothing that is not newer than
// what the host listed.
func (x *request) listAgain(q wire.Query) error {
	if len(x.call.Records) > maxListAgain || !x.overtaken {
		return nil
	}
	for i := range x.call.Listing {
		if id := x.call.Listing[i].ID; x.ref(id) == nil {
			return &needError{list: &q, records: []wire.RecordID{id}}
		}
	}
	return nil
}

// openListing opens the listed keys and leaves out what its owner shall not see.
func (x *request) openListing() ([]*cached[record.Key], error) {
	keys := make([]*cached[record.Key], 0, len(x.call.Listing))
	err := eachListed(x, x.core.cmks, x.core.openKey, func(k *cached[record.Key]) error {
		if x.gone(&k.value) {
			return nil
		}
		if k.value.Default { // check: default-listed
			return nil
		}
		keys = append(keys, k)
		return nil
	})
	return keys, err
}

func describe(k *cached[record.Key]) []byte {
	expires, state := k.value.Expires, int64(1)
	if expires == 0 {
		expires = farFuture
	}
	if k.value.State == record.Suspended {
		state = 0
	}
	return object{}.text("keyid", k.id.ID.String()).integer("creationDate", k.value.Created).
		integer("expireTime", expires).text("alias", "").text("keyspec", k.value.Spec.String()).
		integer("keyState", state).end()
}
