package core

import (
	"cmp"
	"errors"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// needError asks the manager to repeat the call with more.
type needError struct {
	records    []wire.RecordID
	list       *wire.Query
	collateral *wire.CollateralQuery
	version    uint32 // of the DomainKey
}

func (e *needError) Error() string { return "records are needed" }

// asNeed finds the need in err, or returns nil.
func asNeed(err error) *needError {
	var need *needError
	errors.As(err, &need)
	return need
}

func (e *needError) answer() *wire.Answer {
	return &wire.Answer{Kind: wire.Need, NeedRecords: e.records, NeedList: e.list, NeedCollateral: e.collateral, NeedVersion: e.version}
}

// ref finds what the call says about a record, or nil.
func (x *request) ref(id wire.RecordID) *wire.Ref {
	for i := range x.call.Records {
		if x.call.Records[i].ID == id {
			return &x.call.Records[i]
		}
	}
	return nil
}

// need asks for records, and with them for all others of the call, as the core
// may lack the bytes of those too.
func (x *request) need(ids ...wire.RecordID) error {
	for i := range x.call.Records {
		r := &x.call.Records[i]
		if !slices.Contains(ids, r.ID) && len(ids) < wire.MaxRecords {
			ids = append(ids, r.ID)
		}
	}
	return &needError{records: ids}
}

// require asks for those of the records that the call does not name, all at once.
func (x *request) require(ids ...wire.RecordID) error {
	missing := slices.DeleteFunc(ids, func(id wire.RecordID) bool { return x.ref(id) != nil })
	if len(missing) == 0 {
		return nil
	}
	return x.need(missing...)
}

// stale answers to a state that is older than one this core has seen. The
// manager's cache may lag behind its store, so it is asked once to read again.
func (x *request) stale(id wire.RecordID) error {
	if !x.call.Fresh {
		return x.need(id)
	}
	return errInternal("stale record")
}

// load returns the opened state of a record that the call refers to, nil if the
// store has none. Where the core holds a newer state than the call names, it is
// that one: the manager's copy is late, or a change has overtaken the call.
func load[V any](x *request, c *cache[V], id wire.RecordID, open func(record.Header, []byte) (V, error)) (*cached[V], error) {
	ref := x.ref(id)
	if ref == nil {
		return nil, x.need(id)
	}
	e := c.get(id)
	if e != nil {
		if e.revision == ref.Revision && e.tag == ref.Tag || 0 < ref.Revision && ref.Revision < e.revision {
			return e, nil
		}
		if ref.Revision <= e.revision { // check: held
			return nil, x.stale(id)
		}
	}
	if ref.Revision == 0 {
		return nil, x.absent(id)
	}
	if ref.Sealed == nil {
		return nil, x.need(id)
	}
	return openRef(x, c, ref, open)
}

// absent checks a record that the store is said not to have.
func (x *request) absent(id wire.RecordID) error {
	if x.core.facts.Known(id) { // check: fact-absent
		return cmp.Or(x.refuted(id), x.stale(id))
	}
	if x.core.seen.exists(id) { // check: revision-absent
		return x.stale(id)
	}
	return nil
}

func openRef[V any](x *request, c *cache[V], ref *wire.Ref, open func(record.Header, []byte) (V, error)) (*cached[V], error) {
	tag := wire.SealedTag(ref.Sealed)
	if tag != ref.Tag { // check+: ref-tag: the cache goes by the tag of the record itself
		return nil, errInternal("record does not open")
	}
	v, err := open(record.Header{ID: ref.ID, Revision: ref.Revision}, ref.Sealed)
	if err != nil {
		return nil, x.core.unopened(ref.Sealed, err)
	}
	if !c.put(ref.ID, ref.Revision, tag, v) { // check: revision-opened
		if held := c.newer(ref.ID, ref.Revision); held != nil {
			return held, nil // it came while this one was being opened
		}
		return nil, cmp.Or(x.refuted(ref.ID), x.stale(ref.ID))
	}
	return &cached[V]{id: ref.ID, revision: ref.Revision, tag: tag, value: v}, nil
}

// eachListed opens what the host listed and hands it to visit. Every record is of
// the request's tenant and comes once.
func eachListed[V any](x *request, c *cache[V], open func(record.Header, []byte) (V, error), visit func(*cached[V]) error) error {
	named := make(map[wire.RecordID]bool, len(x.call.Listing))
	for i := range x.call.Listing {
		ref := &x.call.Listing[i]
		if ref.ID.Tenant != x.tenant { // check: listing-tenant
			return errInternal("foreign record in a listing")
		}
		if named[ref.ID] { // check: listing-twice
			return errInternal("record twice in a listing")
		}
		named[ref.ID] = true
		e, err := openListed(x, c, ref, open)
		if err != nil {
			return err
		}
		x.overtaken = x.overtaken || e.revision != ref.Revision
		if err := visit(e); err != nil {
			return err
		}
	}
	return nil
}

// openListed opens one listed record without giving it a place in the cache,
// which belongs to records in use. A change may have overtaken the listing: then
// the newer state counts, which the cache has.
func openListed[V any](x *request, c *cache[V], ref *wire.Ref, open func(record.Header, []byte) (V, error)) (*cached[V], error) {
	v, err := open(record.Header{ID: ref.ID, Revision: ref.Revision}, ref.Sealed)
	if err != nil {
		return nil, x.core.unopened(ref.Sealed, err)
	}
	tag := wire.SealedTag(ref.Sealed)
	if x.core.seen.accept(ref.ID, ref.Revision, tag) != newest { // check: revision-listed
		if held := c.newer(ref.ID, ref.Revision); held != nil {
			return held, nil
		}
		return nil, x.relist(ref.ID)
	}
	return &cached[V]{id: ref.ID, revision: ref.Revision, tag: tag, value: v}, nil
}

// relist asks for the listing anew if there are facts about a record that is too old
// in it: it may have been read before the change that they are about.
func (x *request) relist(id wire.RecordID) error {
	if x.query != nil && x.core.facts.Known(id) && x.call.Again < maxAgain {
		return &needError{list: x.query}
	}
	return errInternal("stale record")
}

func appID(tenant wire.UUID) wire.RecordID {
	return wire.RecordID{Type: wire.App, Tenant: tenant, ID: tenant}
}

func (x *request) loadApp(tenant wire.UUID) (*cached[*openApp], error) {
	return load(x, x.core.apps, appID(tenant), x.core.openApp)
}

func (c *Core) openApp(h record.Header, sealed []byte) (*openApp, error) {
	a, texts, err := record.OpenApp(c.keys, h, sealed)
	if err != nil {
		return nil, err
	}
	return newOpenApp(a, texts)
}

// keyRecord names a key of the request's tenant. A text that is no UUID names
// no key.
func (x *request) keyRecord(text string) (wire.RecordID, bool) {
	id, err := wire.ParseUUID(text)
	return wire.RecordID{Type: wire.Key, Tenant: x.tenant, ID: id}, err == nil
}

// loadKey returns a key of the request's tenant that its owner has not deleted,
// nil if there is none. Whether a key of another tenant exists stays unknown,
// as the tenant is part of a record's name.
func (x *request) loadKey(text string) (*cached[record.Key], error) {
	id, ok := x.keyRecord(text)
	if !ok {
		return nil, nil
	}
	x.key = id.ID
	k, err := x.loadKeyRecord(id)
	if err != nil || k == nil {
		return nil, err
	}
	if k.value.Default { // check: default-key
		return nil, nil
	}
	return k, nil
}

// loadKeyRecord returns a key by the name of its record, nil if there is none or
// its owner has deleted it.
func (x *request) loadKeyRecord(id wire.RecordID) (*cached[record.Key], error) {
	k, err := load(x, x.core.cmks, id, x.core.openKey)
	if err != nil || k == nil || x.gone(&k.value) {
		return nil, err
	}
	return k, nil
}

func (c *Core) openKey(h record.Header, sealed []byte) (record.Key, error) {
	return record.OpenKey(c.keys, h, sealed)
}

// gone reports whether the owner has deleted the key. DeleteAllKey, which makes a
// new generation, does not reach the default key, nor those that are protected.
func (x *request) gone(k *record.Key) bool {
	if k.Deleted != 0 { // check: deleted
		return true
	}
	if k.Generation < x.app.value.Generation && !k.Default && !k.Protected { // check: generation
		return true
	}
	return false
}

// loadVersion opens a version of a key and checks that it is the one the key
// record commits to. It returns nil if the key has no such version.
func (x *request) loadVersion(k *cached[record.Key], number uint32) (*openVersion, error) {
	stated, ok := k.value.Version(number)
	if !ok {
		return nil, nil
	}
	if stated.State != record.Active { // check: version-state
		return nil, nil
	}
	id := wire.RecordID{Type: wire.KeyVersion, Tenant: k.id.Tenant, ID: k.id.ID, Version: number}
	v, err := load(x, x.core.versions, id, func(h record.Header, sealed []byte) (*openVersion, error) {
		return x.core.openVersion(h, sealed)
	})
	switch {
	case err != nil:
		return nil, err
	case v == nil:
		return nil, errInternal("key version is missing")
	case v.value.digest != stated.Digest: // check: digest
		return nil, errInternal("key version does not belong to the key")
	}
	x.keyVersion = number
	return v.value, nil
}

// openVersion opens a key version record.
func (c *Core) openVersion(h record.Header, sealed []byte) (*openVersion, error) {
	v, material, err := record.OpenKeyVersion(c.keys, h, sealed)
	if err != nil {
		return nil, err
	}
	o := &openVersion{KeyVersion: v, digest: record.VersionDigest(h.ID, v, material)}
	if v.Spec.Symmetric() {
		o.symmetric, err = primitive.NewSymmetric(v.Spec, material, h.ID.ID, h.ID.Version)
		return o, err
	}
	o.private, err = primitive.OpenPrivate(v.Spec, material)
	material.Zero() // what was parsed of it has its own copy
	return o, err
}
