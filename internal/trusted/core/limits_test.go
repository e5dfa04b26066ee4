package core

import (
	"math/big"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// TestDocumentedLimits keeps docs/threat-model.md true in the other direction:
// what it says does not hold really does not. When one of these fails, the
// document promises too little.
func TestDocumentedLimits(t *testing.T) {
	d, _ := newQuoteDomain(t)
	for _, tt := range []attack{
		{"a new core accepts an older record if the log is withheld and nobody knows its head", func(a *attacker) bool {
			key, before := a.disabled(0)
			a.bring(before)
			a.log = nil
			return a.usable(a.start(), a.alice, key)
		}},
		{"a new core accepts an older record of something that was not narrowed", func(a *attacker) bool {
			key, _ := a.disabled(0)
			a.must(0, a.alice, "EnableKey", named(key))
			disabled := a.history[len(a.history)-2]
			a.bring(disabled)
			states, _ := a.listed(a.start(), a.alice)
			return disabled.ID == a.alice.keyRecord(key) && states[key] == 0
		}},
		{"a second core executes a request once more", func(a *attacker) bool {
			return a.succeeds(small, "GenerateDataKey", a.sent(0, "n"))
		}},
		{"a new core repeats a change if its replay entry is removed", func(a *attacker) bool {
			body := a.alice.body(named(a.alice.createKey()))
			a.succeeds(0, "DisableKey", body)
			clear(a.replays)
			return a.succeeds(a.start(), "DisableKey", body)
		}},
		{"a change that was not confirmed happens later", func(a *attacker) bool {
			key, _ := a.disabled(0)
			a.outcome = func(*wire.Answer) wire.Outcome { return wire.Failed }
			code, _ := a.gets(0, "EnableKey", a.alice.body(named(key)))
			a.bring(a.captured(a.alice.keyRecord(key)))
			return code != codeOK && a.usable(0, a.alice, key)
		}},
		{"an older record once the table of seen revisions has lost the newer one", func(a *attacker) bool {
			key, _ := a.disabled(small)
			disabled := a.captured(a.alice.keyRecord(key))
			a.must(small, a.alice, "EnableKey", named(key))
			a.overflow(small)
			a.flush()
			a.bring(disabled)
			return !a.usable(small, a.alice, key)
		}},
		{"a key left out of a listing", func(a *attacker) bool {
			key := a.alice.createKey()
			delete(a.rows, a.alice.keyRecord(key))
			states, _ := a.listed(0, a.alice)
			return states != nil && len(states) == 0
		}},
		{"a new core accepts collateral from before a TCB recovery", func(a *attacker) bool {
			q := a.quoter()
			quoted, older := q.quote(a.t), q.stated(a.t)
			a.judged(0, quoted, q.stated(a.t, number(21)))
			return !a.judged(0, quoted, older) && a.judged(a.start(), quoted, older)
		}},
		{"revocation lists from before a revocation, while they are in force", func(a *attacker) bool {
			q := a.quoter()
			quoted, older := q.quote(a.t), q.stated(a.t)
			revoked := q.stated(a.t, func(t *issue.Terms) { t.RevokedPCKs = []*big.Int{q.machine.PCK.Cert.SerialNumber} })
			return !a.judged(0, quoted, revoked) && a.judged(0, quoted, older)
		}},
		{"an unsigned action chosen by who holds the request back", func(a *attacker) bool {
			return a.succeeds(0, "DeleteKey", a.alice.body(named(a.alice.createKey())))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if !tt.run(newAttacker(t, d)) {
				t.Error("it is refused")
			}
		})
	}
}
