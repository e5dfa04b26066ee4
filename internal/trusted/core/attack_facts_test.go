package core

import (
	"bytes"
	"context"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// startWith adds a core that knows a head, as from its dkeycache, and is shown a
// log.
func (a *attacker) startWith(head facts.Head, log []byte) int {
	a.t.Helper()
	whole := a.log
	a.log = nil
	n := a.start()
	a.log = log
	a.cores[n].Log().Hear(facts.Statement{Head: head})
	a.show(a.cores[n])
	a.log = whole
	return n
}

// head is how far core 0 has come.
func (a *attacker) head() facts.Head { return a.cores[0].Log().Head() }

// withdrawn has alice narrow something by an action on core 0, and puts all records
// but one back as they were. It returns a core that has just started.
func (a *attacker) withdrawn(action string, payload map[string]any) int {
	before := a.snapshot()
	a.must(0, a.alice, action, payload)
	a.rows = before
	return a.start()
}

// withSecret makes a secret of alice.
func (a *attacker) withSecret() map[string]any {
	name := map[string]any{"secretName": "s"}
	a.must(0, a.alice, "CreateSecret", map[string]any{"secretName": "s", "secretData": "d"})
	return name
}

// shownInstead disables a key and then shows a core what f makes of the log.
func (a *attacker) shownInstead(f func(log []byte) []byte) bool {
	other, _ := a.disabled(0)
	key, before := a.disabled(0)
	a.bring(before)
	n := a.startWith(a.head(), f(bytes.Clone(a.log)))
	return a.usable(n, a.alice, key) || other == key
}

// factAttacks put back what the log of negative facts speaks against.
var factAttacks = []attack{
	{"a key from before it was disabled, on a new core", func(a *attacker) bool {
		key := a.alice.createKey()
		return a.usable(a.withdrawn("DisableKey", named(key)), a.alice, key)
	}},
	{"a key from before it was deleted, on a new core", func(a *attacker) bool {
		key := a.alice.createKey()
		return a.usable(a.withdrawn("DeleteKey", named(key)), a.alice, key)
	}},
	{"an app from before all keys were deleted, on a new core", func(a *attacker) bool {
		key := a.alice.createKey()
		return a.usable(a.withdrawn("DeleteAllKey", nil), a.alice, key)
	}},
	{"a secret from before it was deleted, on a new core", func(a *attacker) bool {
		s := a.withSecret()
		return a.succeeds(a.withdrawn("DeleteSecret", s), "GetSecretValue", a.alice.body(s))
	}},
	{"a secret from before it was deleted at once, on a new core", func(a *attacker) bool {
		s := a.withSecret()
		n := a.withdrawn("DeleteSecret", map[string]any{"secretName": "s", "forceDelete": true})
		return a.succeeds(n, "GetSecretValue", a.alice.body(s))
	}},
	{"a secret from before it was purged, with the clock set back", func(a *attacker) bool {
		s := a.withSecret()
		a.must(0, a.alice, "DeleteSecret", map[string]any{"secretName": "s", "recoveryPeriod": 1})
		before, now := a.snapshot(), a.now
		a.now = now.AddDate(0, 0, 2)
		id := wire.RecordID{Type: wire.Secret, Tenant: a.alice.id(), ID: wire.SecretID(a.alice.id(), "s")}
		answer, err := a.cores[0].Sweep(context.Background(), &wire.Sweep{RequestID: "p", Secret: a.ref(id, true)})
		if err != nil {
			a.t.Fatal(err)
		}
		if end, err := a.settle(0, answer); err != nil || end.Code != codeOK {
			a.t.Fatalf("preparation: purge: %v", err)
		}
		a.rows, a.now = before, now
		return a.succeeds(a.start(), "RestoreSecret", a.alice.body(s))
	}},
	{"a disabled key that is left out, deleted on a new core", func(a *attacker) bool {
		key, _ := a.disabled(0)
		delete(a.rows, a.alice.keyRecord(key))
		return a.succeeds(a.start(), "DeleteKey", a.alice.body(named(key)))
	}},
	{"a key from before it was disabled, listed by a new core", func(a *attacker) bool {
		key := a.alice.createKey()
		states, _ := a.listed(a.withdrawn("DisableKey", named(key)), a.alice)
		return states[key] == 1
	}},
	{"a key from before it was disabled, in the cache of another core", func(a *attacker) bool {
		key := a.alice.createKey()
		a.usable(small, a.alice, key)
		before := a.snapshot()
		a.must(0, a.alice, "DisableKey", named(key))
		a.rows = before
		a.show(a.cores[small])
		return a.usable(small, a.alice, key)
	}},
	{"an EnableKey of the same revision as a DisableKey, on a new core", func(a *attacker) bool {
		key, _ := a.disabled(0)
		a.outcome = func(*wire.Answer) wire.Outcome { return unresolved }
		a.try(0, &wire.Call{Action: "EnableKey", Body: a.alice.body(named(key))})
		enabled := a.captured(a.alice.keyRecord(key))
		a.outcome = nil
		a.must(0, a.alice, "DisableKey", named(key))
		a.bring(enabled)
		return a.usable(a.start(), a.alice, key)
	}},
	{"a key from before it was disabled, wrapped anew", func(a *attacker) bool {
		key, before := a.disabled(0)
		a.bring(before)
		n := a.start()
		return !a.cores[n].refutes(a.alice.keyRecord(key), before)
	}},
	{"a log that is withheld", func(a *attacker) bool {
		return a.shownInstead(func([]byte) []byte { return nil })
	}},
	{"a log that is cut short", func(a *attacker) bool {
		return a.shownInstead(func(log []byte) []byte { return log[:len(log)-wire.FactSize] })
	}},
	{"a log with an entry left out", func(a *attacker) bool {
		return a.shownInstead(func(log []byte) []byte { return log[wire.FactSize:] })
	}},
	{"a log with an altered entry", func(a *attacker) bool {
		return a.shownInstead(func(log []byte) []byte { log[len(log)-wire.FactSize+20] ^= 1; return log })
	}},
	{"a log in another order", func(a *attacker) bool {
		return a.shownInstead(func(log []byte) []byte {
			n := len(log) - wire.FactSize
			return slices.Concat(log[:n-wire.FactSize], log[n:], log[n-wire.FactSize:n])
		})
	}},
	{"a log with the entry of another request at the place", func(a *attacker) bool {
		harmless, key := a.bob.createKey(), a.alice.createKey()
		a.outcome = func(*wire.Answer) wire.Outcome { return unresolved }
		a.try(0, &wire.Call{Action: "DisableKey", Body: a.bob.body(named(harmless))})
		a.outcome = func(*wire.Answer) wire.Outcome { return wire.Stored }
		before := a.snapshot()
		a.must(0, a.alice, "DisableKey", named(key))
		a.outcome = nil
		a.rows = before
		bobs := a.cores[0].pending.open[a.handles[0]]
		if bobs == nil {
			a.t.Fatal("preparation: no pending answer")
		}
		return a.usable(a.startWith(a.head(), bobs.facts.Entries), a.alice, key)
	}},
	{"a DisableKey that is stored at the place of another", func(a *attacker) bool {
		first, second := a.alice.createKey(), a.alice.createKey()
		a.outcome = func(*wire.Answer) wire.Outcome { return unresolved }
		a.try(0, &wire.Call{Action: "DisableKey", Body: a.alice.body(named(first))})
		a.outcome = func(*wire.Answer) wire.Outcome { return wire.Failed } // of one behind it: the next is not
		a.try(0, &wire.Call{Action: "DisableKey", Body: a.alice.body(named(second))})
		a.outcome = func(*wire.Answer) wire.Outcome { return unresolved }
		a.try(0, &wire.Call{Action: "DisableKey", Body: a.alice.body(named(second))})
		one, err := a.resolve(0, a.handles[0], wire.Stored)
		if err != nil || one.Code != codeOK {
			a.t.Fatal("preparation: not stored")
		}
		two, err := a.resolve(0, a.handles[1], wire.Stored)
		return err == nil && two.Code == codeOK
	}},
	{"a core that learns of more entries, and is not shown them", func(a *attacker) bool {
		key := a.alice.createKey()
		a.usable(small, a.alice, key)
		a.must(0, a.alice, "DisableKey", named(key))
		a.cores[small].Log().Hear(facts.Statement{Head: a.head()})
		a.log = nil
		return a.usable(small, a.alice, key)
	}},
	{"a sweep by a core that was not shown the log", func(a *attacker) bool {
		key := a.alice.createKey()
		a.must(0, a.alice, "DeleteAllKey", nil)
		n := a.startWith(a.head(), nil)
		_, writes := a.sweep(n, a.alice, a.ref(a.alice.keyRecord(key), true))
		return writes
	}},
}

// refutes reports whether a core does not wrap a state anew.
func (c *Core) refutes(id wire.RecordID, w wire.Write) bool {
	return c.seen.judge(id, w.Revision, w.Tag()) != newest
}
