package core

import (
	"bytes"
	"crypto/ed25519"
	"slices"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// The domain itself is an app whose id is zero and whose credentials are those of
// its administrators. Its record comes into being with the first change of them.
// Before that there is the one whom the genesis names: not because a record is
// missing, but because it was never there, for a change that takes anything away is
// in the log of negative facts, and a record that the log knows cannot be left out.

// adminActions are all that administrators may do. None of them yields a credential
// that works for a tenant.
func adminActions() []*action {
	app := keyIDMember("appid")
	table := []*action{
		{name: api.ListApps, run: (*request).listApps, storage: "listApps failed", members: []member{
			keyIDMember("after").opt(), {name: "limit", kind: kindInteger, min: 1, max: api.MaxApps, optional: true}}},
		{name: api.DisableApp, mutates: true, run: (*request).disableApp, storage: "disableApp failed", members: []member{app}},
		{name: api.EnableApp, mutates: true, run: (*request).enableApp, storage: "enableApp failed", members: []member{app}},
		{name: api.DeleteApp, mutates: true, run: (*request).deleteApp, storage: "deleteApp failed", members: []member{app}},
		{name: api.ListAdministrators, run: (*request).listAdministrators},
		{name: api.AddAdministrator, mutates: true, run: (*request).addAdministrator, storage: "addAdministrator failed", members: []member{
			{name: "name", kind: kindText, min: 1, max: api.MaxName}, base64Member("publicKey", 44)}},
		{name: api.RemoveAdministrator, mutates: true, run: (*request).removeAdministrator, storage: "removeAdministrator failed", members: []member{
			keyIDMember("id")}},
	}
	table = append(append(table, tokenActions()...), rekeyActions()...)
	for _, a := range table {
		a.admin, a.named = true, true
	}
	return table
}

// adminCredential is the credential of an administrator.
func adminCredential(name string, key ed25519.PublicKey, created int64) record.Credential {
	return record.Credential{
		ID: api.AdminCredential(key), Kind: record.Ed25519, Role: record.Owner, RequireAction: true, Created: created,
		Description: name, PublicKey: key,
	}
}

// newDomainApp is what the domain is before any administrator has changed anything:
// it has the administrator of its genesis, and is nil if that names none.
func newDomainApp(first manifest.Person) (*cached[*openApp], error) {
	if len(first.Key) == 0 {
		return nil, nil
	}
	app, err := newOpenApp(record.App{
		State: record.Active, Credentials: []record.Credential{adminCredential(first.Name, first.Key, 0)},
	}, nil)
	return &cached[*openApp]{id: appID(wire.UUID{}), value: app}, err
}

// loadTenant returns the app in whose name a request comes, nil if there is none.
func (x *request) loadTenant(tenant wire.UUID) (*cached[*openApp], error) {
	entry, err := x.loadApp(tenant)
	if tenant == (wire.UUID{}) && err == nil && entry == nil {
		return x.core.domainApp, nil
	}
	return entry, err
}

// tenantApp returns the app that an administrator names. The domain is none, and
// neither is one that was deleted.
func (x *request) tenantApp() (*cached[*openApp], error) {
	unknown := bad(api.MessageAppUnknown, "no such app")
	id, err := wire.ParseUUID(x.payload.text("appid"))
	if err != nil {
		return nil, unknown
	}
	x.key = id
	if id == (wire.UUID{}) { // check: admin-domain
		return nil, unknown
	}
	a, err := x.loadApp(id)
	if err != nil {
		return nil, err
	}
	if a == nil || a.value.State == record.Destroyed { // check: app-deleted
		return nil, unknown
	}
	return a, nil
}

// disableApp suspends an app, also one that is suspended already: the new revision
// supersedes whatever the host holds of it.
func (x *request) disableApp() (result, error) {
	a, err := x.tenantApp()
	if err != nil {
		return result{}, err
	}
	next := a.value.App
	next.State = record.Suspended
	return result{message: textSuccessful}, x.narrowing(x.replaceApp(a, next, a.value.texts(), false))
}

// enableApp ends a suspension. The app's credentials are those that it had.
func (x *request) enableApp() (result, error) {
	a, err := x.tenantApp()
	if err != nil {
		return result{}, err
	}
	next := a.value.App
	if next.State == record.Active {
		return result{message: textSuccessful}, nil // it is so already
	}
	next.State = record.Active
	return result{message: textSuccessful}, x.replaceApp(a, next, a.value.texts(), false)
}

// deleteApp takes an app's credentials and its default key away for good, and marks
// its other keys as deleted like DeleteAllKey; the sweep takes its secrets as well. The
// record stays, so that no older state comes back.
func (x *request) deleteApp() (result, error) {
	a, err := x.tenantApp()
	if err != nil {
		return result{}, err
	}
	next := a.value.App
	next.State, next.Credentials = record.Destroyed, []record.Credential{}
	next.Generation++
	next.GenerationAt = x.millis()
	if err := x.deleteDefaultKey(a); err != nil {
		return result{}, err
	}
	return result{message: textSuccessful}, x.narrowing(x.replaceApp(a, next, nil, true))
}

// deleteDefaultKey marks the key as deleted that an app's secrets are encrypted under.
// No listing has it, so that no sweep finds it. Where the host says that there is none,
// there is nothing left to do.
func (x *request) deleteDefaultKey(a *cached[*openApp]) error {
	id := wire.RecordID{Type: wire.Key, Tenant: a.id.Tenant, ID: a.value.DefaultKey}
	k, err := load(x, x.core.cmks, id, x.core.openKey)
	if err != nil || k == nil || k.value.Deleted != 0 {
		return err
	}
	next := k.value
	next.Deleted = x.millis()
	return x.narrowing(x.writeKey(k.id, k.revision, next))
}

// replaceApp adds an app record to the writes, with the texts of its API keys.
func (x *request) replaceApp(a *cached[*openApp], next record.App, texts []secret.Bytes, sweep bool) error {
	next.Modified = x.millis()
	revision := a.revision + 1
	sealed, err := record.SealApp(x.core.keys, record.Header{ID: a.id, Revision: revision}, next, texts)
	if err != nil {
		return errInternal("seal app")
	}
	opened, err := newOpenApp(next, texts)
	if err != nil {
		return errInternal("open app")
	}
	w := wire.Write{
		ID: a.id, Expected: a.revision, Revision: revision, Hidden: next.State == record.Destroyed, Sweep: sweep, Sealed: sealed,
	}
	x.write(w)
	x.onStored = append(x.onStored, func() { x.core.apps.put(w.ID, w.Revision, w.Tag(), opened) })
	return nil
}

// listApps lists apps in the order of their ids. The host answers the query: it can
// leave apps out, and cannot add or alter any.
func (x *request) listApps() (result, error) {
	after, err := wire.ParseUUID(x.payload.text("after"))
	if err != nil && x.payload.text("after") != "" {
		return result{}, bad("Parameter invalid, The after format wrong.", "invalid member")
	}
	limit := x.payload.integer("limit")
	if limit == 0 {
		limit = api.MaxApps
	}
	x.query = &wire.Query{Type: wire.App, ID: after, Limit: limit}
	if !x.call.Listed {
		return result{}, &needError{list: x.query}
	}
	apps, err := x.listedApps(after)
	if err != nil {
		return result{}, err
	}
	next := ""
	if len(x.call.Listing) >= limit {
		next = x.call.Listing[len(x.call.Listing)-1].ID.ID.String()
	}
	return listing(apps, describeApp, object{}.text("next", next)), nil
}

// listedApps opens listed apps. They come in the order of their ids, so that none
// comes twice, and are above after.
func (x *request) listedApps(after wire.UUID) ([]*cached[*openApp], error) {
	apps := make([]*cached[*openApp], 0, len(x.call.Listing))
	for i := range x.call.Listing {
		ref := &x.call.Listing[i]
		if ref.ID != appID(ref.ID.Tenant) || bytes.Compare(ref.ID.ID[:], after[:]) <= 0 { // check: listed-app
			return nil, errInternal("listing out of order")
		}
		after = ref.ID.ID
		a, err := openListed(x, x.core.apps, ref, x.core.openApp)
		if err != nil {
			return nil, err
		}
		if a.value.State != record.Destroyed {
			apps = append(apps, a)
		}
	}
	return apps, nil
}

func describeApp(a *cached[*openApp]) []byte {
	v, state := &a.value.App, api.AppActive
	if v.State == record.Suspended {
		state = api.AppSuspended
	}
	return object{}.text("appid", a.id.ID.String()).text("name", v.Name).text("state", state).boolean("exposed", v.Exposed).
		integer("credentials", int64(len(v.Credentials))).integer("createTime", v.Created).integer("modifyTime", v.Modified).end()
}

func (x *request) listAdministrators() (result, error) {
	return listing(x.app.value.Credentials, func(c record.Credential) []byte {
		return object{}.text("id", c.ID.String()).text("name", c.Description).base64("publicKey", c.PublicKey).
			integer("createTime", c.Created).end()
	}, object{}), nil
}

// addAdministrator makes the holder of a key an administrator.
func (x *request) addAdministrator() (result, error) {
	name, key := x.payload.text("name"), ed25519.PublicKey(x.payload.bytes("publicKey"))
	if !printable(name) {
		return result{}, bad("Parameter invalid, The name format wrong.", "invalid member")
	}
	if record.CheckPublicKey(record.Ed25519, key) != nil {
		return result{}, bad(api.MessageAdminKey, "public key")
	}
	next := x.app.value.App
	c := adminCredential(name, key, x.millis())
	x.key = c.ID
	switch {
	case x.administrator(c.ID) >= 0:
		return result{}, bad(api.MessageAdminExists, "administrator exists")
	case len(next.Credentials) >= api.MaxAdministrators:
		return result{}, bad(api.MessageAdminMany, "too many administrators")
	}
	next.Credentials = append(slices.Clone(next.Credentials), c)
	return result{message: textSuccessful}, x.replaceApp(x.app, next, nil, false)
}

// removeAdministrator takes an administrator's key away. All are in one record, so
// that two who remove each other cannot both succeed.
func (x *request) removeAdministrator() (result, error) {
	id, err := wire.ParseUUID(x.payload.text("id"))
	x.key = id
	i := x.administrator(id)
	if err != nil || i < 0 {
		return result{}, bad(api.MessageAdminUnknown, "no such administrator")
	}
	next := x.app.value.App
	if len(next.Credentials) == 1 { // check: last-administrator
		return result{}, bad(api.MessageAdminLast, "last administrator")
	}
	next.Credentials = slices.Delete(slices.Clone(next.Credentials), i, i+1)
	return result{message: textSuccessful}, x.narrowing(x.replaceApp(x.app, next, nil, false))
}

// administrator is the place of a credential among those of the domain, -1 if it is
// none.
func (x *request) administrator(id wire.UUID) int {
	return slices.IndexFunc(x.app.value.Credentials, func(c record.Credential) bool { return c.ID == id })
}
