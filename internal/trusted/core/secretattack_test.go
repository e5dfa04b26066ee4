package core

import (
	"bytes"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A secretAttack is played by a host with accomplices on a secret "n" of alice,
// which has the versions v1 and v2. It returns whether the host got something
// that it should not.
type secretAttack struct {
	name string
	run  func(*secretAttacker) bool
}

type secretAttacker struct {
	*host
	t          *testing.T
	domain     domain
	alice, bob *tenant
	key        string // an SM4 key of alice, under which "sm4" is
}

func TestSecretAttacker(t *testing.T) {
	d := newDomain(t)
	for _, group := range [][]secretAttack{swaps, secretRollbacks, secretLies, defaultKeys} {
		for _, a := range group {
			t.Run(a.name, func(t *testing.T) {
				if a.run(newSecretAttacker(t, d)) {
					t.Error("the attacker succeeded")
				}
			})
		}
	}
}

func newSecretAttacker(t *testing.T, d domain) *secretAttacker {
	a := &secretAttacker{host: d.host(t, Limits{}), t: t, domain: d}
	a.cores = append(a.cores, d.start(t, a.host, Limits{}))
	a.alice, a.bob = a.enroll(), a.enroll()
	a.key = a.alice.mustDo("CreateKey", m{"keyspec": "EH_SM4_CBC", "origin": originInternal, "keyusage": usageEncrypt}).text("keyid")
	a.alice.mustDo("CreateSecret", secretOf("n", "secretData", "v1"))
	a.alice.mustDo("PutSecretValue", secretOf("n", "secretData", "v2"))
	a.alice.mustDo("CreateSecret", secretOf("sm4", "secretData", "s1", "encryptionKeyId", a.key))
	a.alice.mustDo("PutSecretValue", secretOf("sm4", "secretData", "s2"))
	a.bob.mustDo("CreateSecret", secretOf("n", "secretData", "b1"))
	return a
}

// fresh is a core that has seen nothing.
const fresh = 1

// value asks for a value; "" stands for any refusal.
func (a *secretAttacker) value(core int, c *tenant, name string, more ...any) string {
	return c.do(core, "GetSecretValue", secretOf(name, more...)).text("secretData")
}

// row is what the host has of a version of a tenant's secret.
func (a *secretAttacker) row(c *tenant, name string, version uint32) wire.RecordID {
	return wire.RecordID{Type: wire.SecretVersion, Tenant: c.id(), ID: a.secret(c, name).Incarnation, Version: version}
}

// secret is what the record of a secret says.
func (a *secretAttacker) secret(c *tenant, name string) record.Secret {
	id := c.secretRecord(name)
	s, err := record.OpenSecret(a.domain.keys, record.Header{ID: id, Revision: a.rows[id].Revision}, a.rows[id].Sealed)
	if err != nil {
		a.t.Fatal(err)
	}
	return s
}

// pretend puts the sealed bytes of one record in the place of another.
func (a *secretAttacker) pretend(to, from wire.RecordID) {
	w := a.rows[from]
	w.ID = to
	a.rows[to] = w
}

// reseal puts a version in the place of another and seals it as such, as only a
// core could that mixed them up: the value's own encryption is left to refuse it.
func (a *secretAttacker) reseal(to, from wire.RecordID) {
	v, ciphertext, err := record.OpenSecretVersion(a.domain.keys, record.Header{ID: from, Revision: 1}, a.rows[from].Sealed)
	if err != nil {
		a.t.Fatal(err)
	}
	sealed, err := record.SealSecretVersion(a.domain.keys, record.Header{ID: to, Revision: 1}, v, ciphertext)
	if err != nil {
		a.t.Fatal(err)
	}
	a.rows[to] = wire.Write{ID: to, Revision: 1, Sealed: sealed}
}

// putSecret seals a state of a secret, as only a core could that is wrong.
func (a *secretAttacker) putSecret(id wire.RecordID, revision uint64, s record.Secret) {
	sealed, err := record.SealSecret(a.domain.keys, record.Header{ID: id, Revision: revision}, s)
	if err != nil {
		a.t.Fatal(err)
	}
	a.rows[id] = wire.Write{ID: id, Revision: revision, Sealed: sealed}
}

var swaps = []secretAttack{
	{"an older version in place of the current one", func(a *secretAttacker) bool {
		a.pretend(a.row(a.alice, "n", 2), a.row(a.alice, "n", 1))
		return a.value(fresh, a.alice, "n") != ""
	}},
	{"a version of another secret", func(a *secretAttacker) bool {
		a.pretend(a.row(a.alice, "n", 1), a.row(a.alice, "sm4", 1))
		return a.value(fresh, a.alice, "n", "versionId", 1) != ""
	}},
	{"a version of another tenant", func(a *secretAttacker) bool {
		a.pretend(a.row(a.bob, "n", 1), a.row(a.alice, "n", 1))
		return a.value(fresh, a.bob, "n") != ""
	}},
	{"the secret of another tenant", func(a *secretAttacker) bool {
		a.pretend(a.bob.secretRecord("n"), a.alice.secretRecord("n"))
		return a.value(fresh, a.bob, "n") != ""
	}},
	{"another secret of the tenant", func(a *secretAttacker) bool {
		a.pretend(a.alice.secretRecord("n"), a.alice.secretRecord("sm4"))
		return a.value(fresh, a.alice, "n") != ""
	}},
	{"a secret sealed under the id of another name", func(a *secretAttacker) bool {
		a.putSecret(a.alice.secretRecord("n"), 9, a.secret(a.alice, "sm4"))
		return a.value(fresh, a.alice, "n") != "" || len(a.alice.do(fresh, "DescribeSecret", secretOf("n")).Result) > 0
	}},
	{"a value of another version under one key", func(a *secretAttacker) bool {
		a.reseal(a.row(a.alice, "n", 2), a.row(a.alice, "n", 1))
		return a.value(fresh, a.alice, "n") != ""
	}},
	{"a value of another version under one SM4 key", func(a *secretAttacker) bool {
		a.reseal(a.row(a.alice, "sm4", 2), a.row(a.alice, "sm4", 1))
		return a.value(fresh, a.alice, "sm4") != ""
	}},
	{"a value of another secret under one key", func(a *secretAttacker) bool {
		a.alice.mustDo("CreateSecret", secretOf("m", "secretData", "m1"))
		a.reseal(a.row(a.alice, "n", 1), a.row(a.alice, "m", 1))
		return a.value(fresh, a.alice, "n", "versionId", 1) != ""
	}},
	{"a ciphertext of Encrypt as a value", func(a *secretAttacker) bool {
		// Alice encrypts what bob gives her, the host stores it as her secret.
		ct := a.alice.mustDo("Encrypt", m{"keyid": a.key, "plaintext": hello})
		v := record.SecretVersion{Created: 1, Key: a.alice.keyRecord(a.key).ID, KeyVersion: 1}
		id := a.row(a.alice, "sm4", 2)
		sealed, err := record.SealSecretVersion(a.domain.keys, record.Header{ID: id, Revision: 1}, v, []byte(ct.text("ciphertext")))
		if err != nil {
			a.t.Fatal(err)
		}
		a.rows[id] = wire.Write{ID: id, Revision: 1, Sealed: sealed}
		return a.value(fresh, a.alice, "sm4") != ""
	}},
	{"a value altered", func(a *secretAttacker) bool {
		id := a.row(a.alice, "n", 2)
		w := a.rows[id]
		w.Sealed = bytes.Clone(w.Sealed)
		w.Sealed[len(w.Sealed)-20] ^= 1
		a.rows[id] = w
		return a.value(fresh, a.alice, "n") != ""
	}},
}

var secretRollbacks = []secretAttack{
	{"an older state of a secret", func(a *secretAttacker) bool {
		id := a.alice.secretRecord("n")
		old := a.rows[id]
		a.alice.mustDo("PutSecretValue", secretOf("n", "secretData", "v3"))
		a.rows[id] = old
		return a.value(0, a.alice, "n") == "v2"
	}},
	{"a state from before its deletion", func(a *secretAttacker) bool {
		id := a.alice.secretRecord("n")
		old := a.rows[id]
		a.alice.mustDo("DeleteSecret", secretOf("n"))
		a.rows[id] = old
		return a.value(0, a.alice, "n") != ""
	}},
	{"all of it from before it was gone", func(a *secretAttacker) bool {
		kept := map[wire.RecordID]wire.Write{}
		for id, w := range a.rows {
			kept[id] = w
		}
		a.alice.mustDo("DeleteSecret", secretOf("n", "forceDelete", "true"))
		a.rows = kept
		return a.value(0, a.alice, "n") != ""
	}},
	{"no record of a secret that was changed", func(a *secretAttacker) bool {
		delete(a.rows, a.alice.secretRecord("n"))
		created := a.alice.do(0, "CreateSecret", secretOf("n", "secretData", "x")).Code == 200
		return created || a.alice.do(0, "DescribeSecret", secretOf("n")).Code == 200
	}},
	{"versions of an earlier incarnation", func(a *secretAttacker) bool {
		old := a.row(a.alice, "n", 2)
		kept := a.rows[old]
		a.alice.mustDo("DeleteSecret", secretOf("n", "forceDelete", "true"))
		a.alice.mustDo("CreateSecret", secretOf("n", "secretData", "new"))
		a.rows[old] = kept
		now := a.row(a.alice, "n", 1)
		a.pretend(now, old)
		second := now
		second.Version = 2
		a.pretend(second, old)
		return a.value(fresh, a.alice, "n") != "" || a.value(fresh, a.alice, "n", "versionId", 2) != ""
	}},
	{"a version that was never current", func(a *secretAttacker) bool {
		// The put is not confirmed, and the host keeps the version all the same.
		a.outcome = func(*wire.Answer) wire.Outcome { return wire.Failed }
		a.alice.do(0, "PutSecretValue", secretOf("n", "secretData", "lost"))
		a.outcome = nil
		for _, w := range a.history {
			if w.ID == a.row(a.alice, "n", 3) {
				a.rows[w.ID] = w
			}
		}
		return a.value(0, a.alice, "n", "versionId", 3) != ""
	}},
	{"a clock that goes back over a planned deletion", func(a *secretAttacker) bool {
		a.alice.mustDo("DeleteSecret", secretOf("n", "recoveryPeriod", 1))
		a.now = a.now.Add(day)
		a.alice.do(0, "ListKey", nil)
		a.now = a.now.Add(-time.Minute)
		return a.alice.do(0, "RestoreSecret", secretOf("n")).Code == 200
	}},
}

var secretLies = []secretAttack{
	{"versions left out of a listing", func(a *secretAttacker) bool {
		delete(a.rows, a.row(a.alice, "n", 1))
		return a.alice.do(0, "ListSecretVersionIds", secretOf("n")).Code == 200
	}},
	{"the current version left out of a listing", func(a *secretAttacker) bool {
		delete(a.rows, a.row(a.alice, "n", 2))
		return a.alice.do(0, "ListSecretVersionIds", secretOf("n")).Code == 200
	}},
	{"versions of another secret in a listing", func(a *secretAttacker) bool {
		return a.lists("ListSecretVersionIds", secretOf("n"), a.ref(a.row(a.alice, "sm4", 1), true), a.ref(a.row(a.alice, "n", 2), true))
	}},
	{"a version twice in a listing", func(a *secretAttacker) bool {
		return a.lists("ListSecretVersionIds", secretOf("n"), a.ref(a.row(a.alice, "n", 2), true), a.ref(a.row(a.alice, "n", 2), true))
	}},
	{"a secret in place of a version", func(a *secretAttacker) bool {
		return a.lists("ListSecretVersionIds", secretOf("n"), a.ref(a.row(a.alice, "n", 1), true), a.ref(a.alice.secretRecord("n"), true))
	}},
	{"another tenant's secrets in a listing", func(a *secretAttacker) bool {
		return a.lists("ListSecrets", nil, a.ref(a.bob.secretRecord("n"), true))
	}},
	{"a secret twice in a listing", func(a *secretAttacker) bool {
		return a.lists("ListSecrets", nil, a.ref(a.alice.secretRecord("n"), true), a.ref(a.alice.secretRecord("n"), true))
	}},
	{"an older state in a listing", func(a *secretAttacker) bool {
		old := a.ref(a.alice.secretRecord("sm4"), true)
		a.alice.mustDo("UpdateSecretDesc", secretOf("sm4", "description", "new"))
		a.cores[0].secrets = newCache[record.Secret](1, a.cores[0].seen)
		return a.lists("ListSecrets", nil, old)
	}},
	{"secrets that are gone in a listing", func(a *secretAttacker) bool {
		a.alice.mustDo("DeleteSecret", secretOf("n", "forceDelete", "true"))
		list := a.ref(a.alice.secretRecord("n"), true)
		r, _ := a.listed("ListSecrets", nil, list)
		return r.Code != 200 || r.Result["totalCount"] != 0.0
	}},
	{"keys in place of secrets", func(a *secretAttacker) bool {
		return a.lists("ListSecrets", nil, a.ref(a.alice.keyRecord(a.key), true))
	}},
	{"no previous version", func(a *secretAttacker) bool {
		delete(a.rows, a.row(a.alice, "n", 2))
		r := a.alice.do(fresh, "PutSecretValue", secretOf("n", "secretData", "v3"))
		return r.Message != "Current secretname cannot find previous version" || r.Code != 400
	}},
	{"no current version", func(a *secretAttacker) bool {
		delete(a.rows, a.row(a.alice, "n", 2))
		return a.alice.do(fresh, "GetSecretValue", secretOf("n")).Code == 200
	}},
	{"no record of the key", func(a *secretAttacker) bool {
		delete(a.rows, a.alice.keyRecord(a.key))
		r := a.alice.do(fresh, "GetSecretValue", secretOf("sm4"))
		return r.Code != 400 || r.Message != "keyid error"
	}},
}

// listed sends a request of alice and answers its query with refs.
func (a *secretAttacker) listed(action string, payload m, refs ...wire.Ref) (reply, *wire.Answer) {
	c := &wire.Call{Action: action, Body: a.alice.body(payload), Listed: true, Listing: refs, Fresh: true}
	for _, id := range []wire.RecordID{appID(a.alice.id()), a.alice.secretRecord("n")} {
		c.Records = append(c.Records, a.ref(id, true))
	}
	answer, err := a.cores[0].Call(a.t.Context(), c)
	if err == nil {
		answer, err = a.settle(0, answer)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	if answer.Reply == nil {
		return reply{}, answer
	}
	return parseReply(a.t, answer), answer
}

func (a *secretAttacker) lists(action string, payload m, refs ...wire.Ref) bool {
	r, _ := a.listed(action, payload, refs...)
	return r.Code == 200
}

// defaultID is the default key of a tenant, which the host knows and tells.
func (a *secretAttacker) defaultID(c *tenant) wire.UUID {
	for id, w := range a.rows {
		if id.Type == wire.Key && id.Tenant == c.id() && w.Hidden {
			return id.ID
		}
	}
	a.t.Fatal("there is no default key")
	return wire.UUID{}
}

var defaultKeys = []secretAttack{
	{"its use by name", func(a *secretAttacker) bool {
		id := a.defaultID(a.alice).String()
		encrypted := a.alice.do(0, "Encrypt", encrypts(id)).Message != "keyid error"
		disabled := a.alice.do(0, "DisableKey", named(id)).Message != "not find this keyid"
		a.alice.do(0, "DeleteKey", named(id))
		return encrypted || disabled || a.value(0, a.alice, "n") != "v2" || a.value(fresh, a.alice, "n") != "v2"
	}},
	{"a secret that names it", func(a *secretAttacker) bool {
		id := a.defaultID(a.alice).String()
		return a.alice.do(0, "CreateSecret", secretOf("m", "secretData", "x", "encryptionKeyId", id)).Message != noCMK
	}},
	{"another key in its place", func(a *secretAttacker) bool {
		// Bob's default key instead of alice's.
		a.pretend(wire.RecordID{Type: wire.Key, Tenant: a.alice.id(), ID: a.defaultID(a.alice)},
			wire.RecordID{Type: wire.Key, Tenant: a.bob.id(), ID: a.defaultID(a.bob)})
		return a.alice.do(fresh, "CreateSecret", secretOf("m", "secretData", "x")).Code == 200
	}},
	{"its listing", func(a *secretAttacker) bool {
		id := wire.RecordID{Type: wire.Key, Tenant: a.alice.id(), ID: a.defaultID(a.alice)}
		w := a.rows[id]
		w.Hidden = false
		a.rows[id] = w
		return len(a.alice.mustDo("ListKey", nil).Result["list"].([]any)) != 1
	}},
	{"a sweep of it", func(a *secretAttacker) bool {
		a.alice.mustDo("DeleteAllKey", nil)
		id := wire.RecordID{Type: wire.Key, Tenant: a.alice.id(), ID: a.defaultID(a.alice)}
		s := &wire.Sweep{RequestID: "s", App: a.ref(appID(a.alice.id()), true), Keys: []wire.Ref{a.ref(id, true)}}
		answer, err := a.cores[0].Sweep(a.t.Context(), s)
		return err != nil || len(answer.Writes) != 0
	}},
	{"none at all", func(a *secretAttacker) bool {
		delete(a.rows, wire.RecordID{Type: wire.Key, Tenant: a.alice.id(), ID: a.defaultID(a.alice)})
		const none = "Cannot find default CMK."
		created := a.alice.do(fresh, "CreateSecret", secretOf("m", "secretData", "x")).Message != none
		put := a.alice.do(fresh, "PutSecretValue", secretOf("n", "secretData", "x")).Message != none
		return created || put || a.alice.do(fresh, "GetSecretValue", secretOf("n")).Message != none
	}},
	{"an app that has none", func(a *secretAttacker) bool {
		c := a.adopt(a.domain, wire.NewUUID().String(), "key")
		return c.do(0, "CreateSecret", secretOf("m", "secretData", "x")).Message != "Cannot find default CMK."
	}},
	{"DeleteAllKey", func(a *secretAttacker) bool {
		a.alice.mustDo("DeleteAllKey", nil)
		return a.value(fresh, a.alice, "n") != "v2"
	}},
}
