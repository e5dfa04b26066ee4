package core

import (
	"slices"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// keyDue is when there is something to do to a key that nobody asks for, in Unix
// milliseconds; 0: never.
func (x *request) keyDue(k *record.Key) int64 {
	switch {
	case k.State == record.Destroyed:
		return 0
	case k.Deleted != 0:
		return x.destruction(k)
	}
	due := k.Rotate
	for _, v := range k.Versions {
		if v.Destroy != 0 && (due == 0 || v.Destroy < due) {
			due = v.Destroy
		}
	}
	return due
}

// attend does what is due to a key: it destroys material whose window is over, and
// makes a new version when the old one's time is. It refuses to do anything before
// its time. No signature is needed: the owner's dates are in the record.
func (c *Core) attend(s *wire.Sweep) *wire.Answer {
	x := &request{
		core: c, now: c.clock.micros(), tenant: s.Secret.ID.Tenant, key: s.Secret.ID.ID,
		call:   &wire.Call{RequestID: s.RequestID, Action: "AttendKey", Records: []wire.Ref{s.App}, Fresh: true},
		action: &action{name: "AttendKey", mutates: true},
	}
	var err error
	if x.app, err = x.loadApp(x.tenant); err == nil && x.app == nil {
		err = errInternal("no such app")
	}
	if err == nil {
		err = x.attendKey(&s.Secret)
	}
	if need := asNeed(err); need != nil {
		return need.answer()
	}
	if err != nil {
		x.writes = nil
		return x.finish(result{}, notRefusal(err, "what is due to a key"))
	}
	return x.suspend(result{message: textSuccessful}, nil)
}

func (x *request) attendKey(ref *wire.Ref) error {
	k, err := openListed(x, x.core.cmks, ref, x.core.openKey)
	if err != nil {
		return err
	}
	if due := x.keyDue(&k.value); due == 0 || x.millis() < due { // check: due
		return errInternal("before its time")
	}
	if k.value.Deleted != 0 {
		return x.destroyKey(k)
	}
	next, destroyed := x.destroyVersions(k)
	if next.Rotate != 0 && x.millis() >= next.Rotate {
		if next, err = x.rotateDue(k, next); err != nil {
			return err
		}
	}
	err = x.writeKey(k.id, k.revision, next)
	if destroyed {
		err = x.narrowing(err)
	}
	return err
}

// destroyKey takes all of a key away but its record, which stays so that no older
// state of it is accepted anywhere.
func (x *request) destroyKey(k *cached[record.Key]) error {
	next := k.value
	next.State, next.Destroy, next.Rotate, next.Period, next.Primary = record.Destroyed, 0, 0, 0, 0
	next.Description, next.Tags, next.Versions = "", nil, slices.Clone(next.Versions)
	for i := range next.Versions {
		next.Versions[i].State, next.Versions[i].Destroy = record.Destroyed, 0
	}
	x.write(wire.Write{ID: wire.RecordID{Type: wire.KeyVersion, Tenant: x.tenant, ID: k.id.ID}, Remove: true})
	x.write(wire.Write{ID: wire.RecordID{Type: wire.ImportSession, Tenant: x.tenant, ID: k.id.ID}, Remove: true})
	return x.narrowing(x.writeKey(k.id, k.revision, next))
}

// destroyVersions takes the versions away that are due.
func (x *request) destroyVersions(k *cached[record.Key]) (next record.Key, some bool) {
	next = k.value
	next.Versions = slices.Clone(next.Versions)
	for i := range next.Versions {
		v := &next.Versions[i]
		if v.Destroy == 0 || x.millis() < v.Destroy { // check: version-due
			continue
		}
		v.State, v.Destroy, some = record.Destroyed, 0, true
		x.write(wire.Write{ID: wire.RecordID{Type: wire.KeyVersion, Tenant: x.tenant, ID: k.id.ID, Version: v.Number}, Remove: true})
	}
	return next, some
}

// rotateDue makes a key's next version. A key that cannot have one now, as it or
// its app is suspended, gets it a day later.
func (x *request) rotateDue(k *cached[record.Key], next record.Key) (record.Key, error) {
	if next.State != record.Active || x.gone(&next) || x.app.value.State != record.Active || x.core.specOff(next.Spec) ||
		len(next.Versions) >= record.MaxVersions {
		next.Rotate = x.millis() + dayMillis
		return next, nil
	}
	return x.rotated(&cached[record.Key]{id: k.id, revision: k.revision, value: next})
}
