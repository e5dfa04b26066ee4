package core

import (
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const defaultRecovery = 30 // days

// deleteSecret hides a secret until a date, at which it is gone for good, or
// makes it be gone at once.
func (x *request) deleteSecret() (result, error) {
	force := forces(x.payload.get("forceDelete"))
	if force {
		forced := *x.action
		forced.storage = "Force delete failed"
		x.action = &forced
	}
	s, err := x.loadSecret()
	if err != nil {
		return result{}, err
	}
	if s == nil {
		return result{}, bad("Delete error, Can not find the secretName", "no such secret")
	}
	name := s.value.Name
	if force {
		return result{message: "The " + name + " delete success"}, x.bury(s)
	}
	days := defaultRecovery
	if n := x.payload.integer("recoveryPeriod"); n != 0 {
		days = n
	}
	next := s.value
	next.Planned = x.millis() + int64(days)*(24*time.Hour).Milliseconds()
	return result{message: fmt.Sprintf("The %s will be deleted after %d days.", name, days)}, x.narrowing(x.writeSecret(s.id, s.revision, next))
}

// restoreSecret takes a planned deletion back. One that is not to be deleted gets
// a new revision too, which supersedes what the host may hold of a deletion that
// was never confirmed.
func (x *request) restoreSecret() (result, error) {
	s, err := x.loadSecret()
	if err != nil {
		return result{}, err
	}
	if s == nil {
		return result{}, bad("Can not restore secret, the secretName not find.", "no such secret")
	}
	next := s.value
	next.Planned = 0
	return result{message: "The " + next.Name + " restore success."}, x.writeSecret(s.id, s.revision, next)
}

// bury takes all of a secret away. Its record stays, with nothing in it, so that
// this core and every other accept none of its older states.
func (x *request) bury(s *cached[record.Secret]) error {
	x.removeVersions(&s.value)
	return x.narrowing(x.writeSecret(s.id, s.revision, record.Secret{State: record.Destroyed}))
}

// removeVersions has the store remove all versions of an incarnation, if it has
// any left.
func (x *request) removeVersions(s *record.Secret) {
	if s.State == record.Active {
		x.write(wire.Write{ID: wire.RecordID{Type: wire.SecretVersion, Tenant: x.tenant, ID: s.Incarnation}, Remove: true})
	}
}

// purge buries a secret whose planned deletion is due, and refuses any other. No
// signature is needed: the owner's date is in the record, and the secret has been
// gone for every action since.
func (c *Core) purge(s *wire.Sweep) *wire.Answer {
	x := &request{
		core: c, now: c.clock.micros(), tenant: s.Secret.ID.Tenant, key: s.Secret.ID.ID,
		call:   &wire.Call{RequestID: s.RequestID, Action: "Purge", Fresh: true},
		action: &action{name: "Purge", mutates: true},
	}
	old, err := openListed(x, c.secrets, &s.Secret, c.openSecret)
	if err == nil && old.value.State != record.Active {
		return &wire.Answer{Kind: wire.Final, Code: codeOK} // it is so already
	}
	if err == nil {
		err = x.buryDue(old)
	}
	if need := asNeed(err); need != nil {
		return need.answer()
	}
	if err != nil {
		return x.finish(result{}, err)
	}
	return x.suspend(result{message: textSuccessful}, nil)
}

func (x *request) buryDue(s *cached[record.Secret]) error {
	if !x.secretGone(&s.value) { // check: purge-due
		return errInternal("purge before its time")
	}
	return x.bury(s)
}
