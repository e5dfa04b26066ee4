package core

import (
	"context"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Sweep implements wire.Core. It marks as deleted those of the named keys that
// belong to an earlier generation than their app, takes away the named secrets of an
// app that was deleted, and does nothing else: no signature is needed, as the app
// record says already that they are gone. One that names a secret to be purged is a
// purge instead, and one that names a key and its app does what is due to that key.
func (c *Core) Sweep(_ context.Context, s *wire.Sweep) (*wire.Answer, error) {
	if len(s.Keys) > wire.SweepStep {
		return nil, fmt.Errorf("sweep: %w", ErrLimit)
	}
	if err := c.reach(s.Floor, c.clock.micros()); err != nil {
		return asNeed(err).answer(), nil
	}
	if c.facts.Ready() != nil { // check: fact-gate-sweep
		return &wire.Answer{Kind: wire.Need, NeedFacts: true}, nil
	}
	if s.Secret.ID.Type != 0 {
		if s.Secret.ID.Type == wire.Key {
			return c.attend(s), nil
		}
		return c.purge(s), nil
	}
	x := &request{
		core: c, now: c.clock.micros(), tenant: s.App.ID.Tenant,
		call:   &wire.Call{RequestID: s.RequestID, Action: "Sweep", Records: []wire.Ref{s.App}, Fresh: true},
		action: &action{name: "Sweep", mutates: true},
	}
	var err error
	if x.app, err = x.loadApp(x.tenant); err == nil && x.app == nil {
		err = errInternal("no such app")
	}
	for i := 0; err == nil && i < len(s.Keys); i++ {
		err = x.sweepRecord(&s.Keys[i])
	}
	if err == nil && len(x.writes) > wire.MaxWrites {
		err = errInternal("too many secrets in a sweep")
	}
	if need := asNeed(err); need != nil && need.version != 0 {
		return need.answer(), nil
	}
	if err != nil {
		x.writes = nil
		return x.finish(result{}, notRefusal(err, "sweep")), nil
	}
	if !x.pends() {
		return &wire.Answer{Kind: wire.Final, Code: codeOK}, nil
	}
	return x.suspend(result{message: textSuccessful}, nil), nil
}

func (x *request) sweepRecord(ref *wire.Ref) error {
	if ref.ID.Tenant != x.tenant { // check: sweep-tenant
		return errInternal("foreign record in a sweep")
	}
	if ref.ID.Type == wire.Secret {
		return x.sweepSecret(ref)
	}
	return x.sweepKey(ref)
}

// sweepSecret takes all of a secret away whose app was deleted. Nobody can ask for it
// any more, as no core accepts an older state of the app: this only makes the
// database forget, and so adds no fact.
func (x *request) sweepSecret(ref *wire.Ref) error {
	if x.app.value.State != record.Destroyed { // check: sweep-secret
		return errInternal("secret of an app that is not deleted in a sweep")
	}
	s, err := openListed(x, x.core.secrets, ref, x.core.openSecret)
	if err != nil || s.value.State == record.Destroyed {
		return err
	}
	x.removeVersions(&s.value)
	return x.writeSecret(s.id, s.revision, record.Secret{State: record.Destroyed})
}

// sweepKey adds the marked key to the writes, if it is due.
func (x *request) sweepKey(ref *wire.Ref) error {
	k, err := openListed(x, x.core.cmks, ref, x.core.openKey)
	if err != nil {
		return err
	}
	if k.value.Deleted != 0 { // check: sweep-once
		return nil
	}
	if k.value.Generation >= x.app.value.Generation { // check: sweep-due
		return nil
	}
	if k.value.Default { // check: sweep-default
		return nil
	}
	if k.value.Protected { // check: sweep-protected
		return nil
	}
	next := k.value
	next.Deleted, next.Generation = x.app.value.GenerationAt, x.app.value.Generation
	return x.writeKey(k.id, k.revision, next)
}
