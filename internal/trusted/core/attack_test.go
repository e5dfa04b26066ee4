package core

import (
	"context"
	"encoding/json"
	"maps"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// An attacker is a host that keeps every record it ever got, stored or not, the
// audit stream and every request. It knows no API key: alice and bob sign what
// they want done and nothing else. Where an attack needs an accomplice, that is
// bob, who helps with his own credentials against alice.
type attacker struct {
	*host
	domain     domain
	alice, bob *tenant
}

// An attack returns whether it got something done that it should not.
type attack struct {
	name string
	run  func(*attacker) bool
}

// TestHostAttacker plays all attacks. TestMutants removes the checks of the core
// one at a time and expects this test to fail each time.
func TestHostAttacker(t *testing.T) {
	d, _ := newQuoteDomain(t)
	for _, group := range [][]attack{forgeries, mixtures, rollbacks, lies, replayAttacks, confusions, listings, sweeps, inspections, quoteAttacks, factAttacks, policyAttacks} {
		for _, a := range group {
			t.Run(a.name, func(t *testing.T) {
				if a.run(newAttacker(t, d)) {
					t.Error("the attacker succeeded")
				}
			})
		}
	}
}

// newAttacker is a host with two cores. The caches of the second are as small
// as they can be.
func newAttacker(t *testing.T, d domain) *attacker {
	h := d.host(t, Limits{})
	h.cores = append(h.cores, d.start(t, h, Limits{Apps: 1, Keys: 1, Seen: 1, Replays: 1, ReplaysPerTenant: 1}))
	return &attacker{host: h, domain: d, alice: h.enroll(), bob: h.enroll()}
}

// small is the core with small caches.
const small = 1

// start adds a core, as by a restart or on another node.
func (a *attacker) start() int {
	a.cores = append(a.cores, a.domain.start(a.t, a.host, Limits{}))
	return len(a.cores) - 1
}

// gets sends a request and returns the code and text of the reply; the code is 0
// if there is none.
func (a *attacker) gets(core int, action string, body []byte) (code int, message string) {
	answer, err := a.try(core, &wire.Call{Action: action, Body: body})
	if err != nil || answer.Reply == nil {
		return 0, ""
	}
	r := parseReply(a.t, answer)
	return r.Code, r.Message
}

func (a *attacker) succeeds(core int, action string, body []byte) bool {
	code, _ := a.gets(core, action, body)
	return code == codeOK
}

// usable reports whether a tenant's request to encrypt is executed.
func (a *attacker) usable(core int, c *tenant, keyid string) bool {
	return a.succeeds(core, "Encrypt", c.body(encrypts(keyid)))
}

// must has a tenant do something on a core, as the attack's preparation.
func (a *attacker) must(core int, c *tenant, action string, payload map[string]any) reply {
	a.t.Helper()
	r := c.do(core, action, payload)
	if r.Code != codeOK {
		a.t.Fatalf("preparation: %s: %d %s", action, r.Code, r.Message)
	}
	return r
}

// snapshot copies the database.
func (a *attacker) snapshot() map[wire.RecordID]wire.Write { return maps.Clone(a.rows) }

// flush has other tenants use so many keys that nothing stays in the caches of
// the small core.
func (a *attacker) flush() {
	for range 20 {
		c := a.enroll()
		a.must(small, c, "Encrypt", encrypts(c.createKey()))
	}
}

// captured is the newest record that the core returned with this name, stored
// or not.
func (a *attacker) captured(id wire.RecordID) wire.Write {
	for i := len(a.history) - 1; i >= 0; i-- {
		if a.history[i].ID == id {
			return a.history[i]
		}
	}
	a.t.Fatalf("no record %s", id)
	return wire.Write{}
}

// listed returns the states that a listing gives, by key id.
func (a *attacker) listed(core int, c *tenant) (states map[string]float64, twice bool) {
	answer, err := a.try(core, &wire.Call{Action: "ListKey", Body: c.body(nil)})
	if err != nil || answer.Code != codeOK {
		return nil, false
	}
	var r struct {
		Result struct {
			List []struct {
				KeyID    string
				KeyState float64
			}
		}
	}
	if err := json.Unmarshal(answer.Reply, &r); err != nil {
		a.t.Fatal(err)
	}
	states = map[string]float64{}
	for _, k := range r.Result.List {
		_, again := states[k.KeyID]
		twice = twice || again
		states[k.KeyID] = k.KeyState
	}
	return states, twice
}

// sweep offers keys to a sweep and returns whether it would write.
func (a *attacker) sweep(core int, c *tenant, keys ...wire.Ref) (*wire.Answer, bool) {
	answer, err := a.cores[core].Sweep(context.Background(), &wire.Sweep{RequestID: "s", App: a.ref(appID(c.id()), true), Keys: keys})
	if err != nil {
		return nil, false
	}
	return answer, len(answer.Writes) > 0
}

// overflow fills a core's table of seen revisions, which has its least size.
func (a *attacker) overflow(core int) {
	c := a.enroll()
	for range 1100 {
		id := wire.RecordID{Type: wire.Key, Tenant: c.id(), ID: wire.NewUUID()}
		sealed, err := record.SealKey(a.domain.keys, record.Header{ID: id, Revision: 2}, record.Key{
			Spec: primitive.AESGCM128, Usage: record.EncryptDecrypt, Origin: record.Internal, State: record.Active,
		})
		if err != nil {
			a.t.Fatal(err)
		}
		a.rows[id] = wire.Write{ID: id, Revision: 2, Sealed: sealed}
	}
	if keys, _ := a.listed(core, c); len(keys) != 1100 {
		a.t.Fatal("preparation: the listing is refused")
	}
}
