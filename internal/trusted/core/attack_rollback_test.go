package core

import (
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// disabled makes a key of alice, disables it on a core, and returns it with its
// record from before.
func (a *attacker) disabled(core int) (key string, before wire.Write) {
	key = a.alice.createKey()
	before = a.rows[a.alice.keyRecord(key)]
	a.must(core, a.alice, "DisableKey", named(key))
	return key, before
}

// bring puts a record back into the database.
func (a *attacker) bring(w wire.Write) { a.rows[w.ID] = w }

// rollbacks present older genuine records to a core that has seen newer ones, or
// deny them.
var rollbacks = []attack{
	{"a disabled key as it is", func(a *attacker) bool {
		key, _ := a.disabled(0)
		return a.usable(0, a.alice, key) || a.usable(a.start(), a.alice, key)
	}},
	{"a deleted key as it is", func(a *attacker) bool {
		key := a.alice.createKey()
		a.must(0, a.alice, "DeleteKey", named(key))
		return a.usable(0, a.alice, key) || a.usable(a.start(), a.alice, key) ||
			a.succeeds(0, "EnableKey", a.alice.body(named(key)))
	}},
	{"a key deleted with all others, without the sweep", func(a *attacker) bool {
		key := a.alice.createKey()
		a.must(0, a.alice, "DeleteAllKey", nil)
		return a.usable(0, a.alice, key) || a.usable(a.start(), a.alice, key) ||
			a.succeeds(0, "DisableKey", a.alice.body(named(key)))
	}},
	{"a revoked credential", func(a *attacker) bool {
		a.putApp(a.domain, a.alice, 2, record.App{State: record.Suspended})
		return a.succeeds(0, "ListKey", a.alice.body(nil))
	}},
	{"the app record from before the revocation", func(a *attacker) bool {
		before := a.rows[appID(a.alice.id())]
		a.putApp(a.domain, a.alice, 2, record.App{State: record.Suspended})
		a.gets(small, "ListKey", a.alice.body(nil))
		a.flush()
		a.bring(before)
		return a.succeeds(small, "ListKey", a.alice.body(nil))
	}},
	{"an expired key, after the clock was set back", func(a *attacker) bool {
		key, now := a.alice.createKey(), a.now
		a.alter(a.domain, a.alice, key, func(k *record.Key) { k.Expires = now.Add(time.Minute).UnixMilli() })
		a.now = now.Add(time.Minute)
		done := a.usable(0, a.alice, key)
		a.now = now
		return done || a.succeeds(0, "Encrypt", a.alice.sign(encrypts(key), now.Add(time.Minute), ""))
	}},
	{"the key from before, while cached", func(a *attacker) bool {
		key, before := a.disabled(0)
		a.bring(before)
		return a.usable(0, a.alice, key)
	}},
	{"the key from before, no longer cached", func(a *attacker) bool {
		key, before := a.disabled(small)
		a.flush()
		a.bring(before)
		return a.usable(small, a.alice, key)
	}},
	{"the key from before, on a core that only refused to use it", func(a *attacker) bool {
		key, before := a.disabled(0)
		a.usable(small, a.alice, key)
		a.flush()
		a.bring(before)
		return a.usable(small, a.alice, key)
	}},
	{"the key from before, on a core that only listed it", func(a *attacker) bool {
		key, before := a.disabled(0)
		a.listed(small, a.alice)
		a.bring(before)
		return a.usable(small, a.alice, key)
	}},
	{"the key from before its deletion", func(a *attacker) bool {
		key := a.alice.createKey()
		before := a.rows[a.alice.keyRecord(key)]
		a.must(small, a.alice, "DeleteKey", named(key))
		a.flush()
		a.bring(before)
		return a.usable(small, a.alice, key)
	}},
	{"the app from before all keys were deleted, while cached", func(a *attacker) bool {
		key, before := a.alice.createKey(), a.snapshot()
		a.must(0, a.alice, "DeleteAllKey", nil)
		a.rows = before
		return a.usable(0, a.alice, key)
	}},
	{"the app from before all keys were deleted, no longer cached", func(a *attacker) bool {
		key := a.alice.createKey()
		before := a.rows[appID(a.alice.id())]
		a.must(small, a.alice, "DeleteAllKey", nil)
		a.flush()
		a.bring(before)
		return a.usable(small, a.alice, key)
	}},
	{"the app from before, on a core that saw the new one in a sweep", func(a *attacker) bool {
		key := a.alice.createKey()
		before := a.rows[appID(a.alice.id())]
		a.must(0, a.alice, "DeleteAllKey", nil)
		a.sweep(small, a.alice)
		a.bring(before)
		return a.usable(small, a.alice, key)
	}},
	{"the app from before, on a core that saw the new one with a forged request", func(a *attacker) bool {
		key := a.alice.createKey()
		before := a.rows[appID(a.alice.id())]
		a.must(0, a.alice, "DeleteAllKey", nil)
		a.gets(small, "ListKey", withSign(a.alice.request(""), "AAAA"))
		a.flush()
		a.bring(before)
		return a.usable(small, a.alice, key)
	}},
	{"the key from before, after others filled the table of seen revisions", func(a *attacker) bool {
		a.cores = append(a.cores, a.domain.start(a.t, a.host, Limits{Seen: 1}))
		core := len(a.cores) - 1
		key, before := a.disabled(core)
		a.overflow(core)
		a.bring(before)
		return a.usable(core, a.alice, key)
	}},
	{"a key denied that the core holds", func(a *attacker) bool {
		key := a.alice.createKey()
		a.must(0, a.alice, "Encrypt", encrypts(key))
		delete(a.rows, a.alice.keyRecord(key))
		_, message := a.gets(0, "Encrypt", a.alice.body(encrypts(key)))
		return message == errKeyID().message
	}},
	{"a changed key denied that is no longer cached", func(a *attacker) bool {
		key, _ := a.disabled(small)
		a.flush()
		delete(a.rows, a.alice.keyRecord(key))
		_, message := a.gets(small, "Encrypt", a.alice.body(encrypts(key)))
		return message == errKeyID().message
	}},
	{"a key denied when it is deleted", func(a *attacker) bool {
		key, before := a.alice.createKey(), a.snapshot()
		core := a.start()
		delete(a.rows, a.alice.keyRecord(key))
		deleted := a.succeeds(core, "DeleteKey", a.alice.body(named(key)))
		a.rows = before
		return deleted && a.usable(core, a.alice, key)
	}},
}

// lies are attacks with what is said about the store.
var lies = []attack{
	{"a change said to be stored that is not", func(a *attacker) bool {
		key, before := a.alice.createKey(), a.snapshot()
		a.outcome = func(*wire.Answer) wire.Outcome { return wire.Stored }
		a.must(0, a.alice, "DisableKey", named(key))
		a.rows, a.outcome = before, nil
		return a.usable(0, a.alice, key)
	}},
	{"an EnableKey said to have failed, after a DisableKey", func(a *attacker) bool {
		return a.enableLater(func(*wire.Answer) wire.Outcome { return wire.Failed })
	}},
	{"an EnableKey said to be in conflict, after a DisableKey", func(a *attacker) bool {
		return a.enableLater(func(*wire.Answer) wire.Outcome { return wire.Conflict })
	}},
	{"an EnableKey said to be replayed, after a DisableKey", func(a *attacker) bool {
		return a.enableLater(func(*wire.Answer) wire.Outcome { return wire.Replayed })
	}},
	{"an EnableKey left open, after a DisableKey", func(a *attacker) bool {
		return a.enableLater(func(*wire.Answer) wire.Outcome { return unresolved })
	}},
	{"an EnableKey of the same revision as a DisableKey, both stored", func(a *attacker) bool {
		key, _ := a.disabled(0)
		a.outcome = func(*wire.Answer) wire.Outcome { return unresolved }
		a.try(0, &wire.Call{Action: "EnableKey", Body: a.alice.body(named(key))})
		enabled := a.captured(a.alice.keyRecord(key))
		a.outcome = nil
		a.must(0, a.alice, "DisableKey", named(key))
		answer, err := a.resolve(0, a.handles[0], wire.Stored)
		a.bring(enabled)
		return err == nil && answer.Code == codeOK || a.usable(0, a.alice, key)
	}},
	{"a key that was changed, left out when it is deleted", func(a *attacker) bool {
		key := a.alice.createKey()
		a.alter(a.domain, a.alice, key, func(k *record.Key) { k.Expires = a.now.Add(time.Hour).UnixMilli() })
		a.usable(small, a.alice, key)
		a.flush()
		delete(a.rows, a.alice.keyRecord(key))
		return a.succeeds(small, "DeleteKey", a.alice.body(named(key)))
	}},
	{"an answer resolved twice", func(a *attacker) bool {
		key := a.alice.createKey()
		a.outcome = func(*wire.Answer) wire.Outcome { return unresolved }
		a.try(0, &wire.Call{Action: "DisableKey", Body: a.alice.body(named(key))})
		if _, err := a.resolve(0, a.handles[0], wire.Failed); err != nil {
			a.t.Fatal(err)
		}
		_, err := a.resolve(0, a.handles[0], wire.Stored)
		return err == nil
	}},
	{"an answer of another core resolved", func(a *attacker) bool {
		key := a.alice.createKey()
		a.outcome = func(*wire.Answer) wire.Outcome { return unresolved }
		a.try(0, &wire.Call{Action: "DisableKey", Body: a.alice.body(named(key))})
		_, err := a.resolve(small, a.handles[0], wire.Stored)
		return err == nil
	}},
}

// enableLater has alice enable a key, with a lie about the outcome, and disable
// it again. It returns whether the key is usable with the record from between.
func (a *attacker) enableLater(outcome func(*wire.Answer) wire.Outcome) bool {
	key, _ := a.disabled(0)
	a.outcome = outcome
	a.try(0, &wire.Call{Action: "EnableKey", Body: a.alice.body(named(key))})
	enabled := a.captured(a.alice.keyRecord(key))
	a.outcome = nil
	a.must(0, a.alice, "DisableKey", named(key))
	a.bring(enabled)
	return a.usable(0, a.alice, key)
}
