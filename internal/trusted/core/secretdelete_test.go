package core

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const day = 24 * time.Hour

// secretRef is what the host has of a tenant's secret.
func (h *host) secretRef(c *tenant, name string) wire.Ref {
	return h.ref(c.secretRecord(name), true)
}

func (c *tenant) secretRecord(name string) wire.RecordID {
	return wire.RecordID{Type: wire.Secret, Tenant: c.id(), ID: wire.SecretID(c.id(), name)}
}

// purge offers a secret to a core, as the manager does when it is due, and
// returns how many writes were stored and the code.
func (h *host) purge(t testing.TB, core int, f wire.Ref) (writes, code int) {
	t.Helper()
	s := &wire.Sweep{RequestID: "p", Secret: f}
	if f.ID.Type == wire.Key {
		s.App = h.ref(appID(f.ID.Tenant), true)
	}
	a, err := h.cores[core].Sweep(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	end, err := h.settle(core, a)
	if err != nil {
		t.Fatal(err)
	}
	if end.Sign != "" {
		t.Error("the answer to a purge is signed for a tenant")
	}
	return len(a.Writes), end.Code
}

// TestPlannedDeletion goes to the last millisecond and past it.
func TestPlannedDeletion(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "v1"))
	created := h.now
	c.mustDo("DeleteSecret", secretOf("n", "recoveryPeriod", 1))
	if due := h.rows[c.secretRecord("n")].Due; due != created.Add(day).UnixMilli() {
		t.Errorf("the host is told %d, want %d", due, created.Add(day).UnixMilli())
	}
	h.now = created.Add(day - time.Millisecond)
	want(t, "restore at the last millisecond", c.do(0, "RestoreSecret", secretOf("n")), 200, "The n restore success.")
	if w := h.rows[c.secretRecord("n")]; w.Due != 0 || w.Hidden {
		t.Errorf("after it the host is told due %d, hidden %v", w.Due, w.Hidden)
	}
	c.mustDo("DeleteSecret", secretOf("n", "recoveryPeriod", 1))
	c.mustDo("DeleteSecret", secretOf("n", "recoveryPeriod", 2)) // later
	h.now = h.now.Add(2*day - time.Millisecond)
	want(t, "one millisecond before", c.do(0, "CreateSecret", secretOf("n", "secretData", "x")), 400, taken)
	if n := c.mustDo("ListSecrets", nil).Result["totalCount"]; n != 1.0 {
		t.Errorf("one millisecond before %v secrets are listed, want 1", n)
	}
	h.now = h.now.Add(time.Millisecond)
	// Nobody has purged it, and it is gone all the same.
	c.play(t, []step{
		{"RestoreSecret", secretOf("n"), 400, "Can not restore secret, the secretName not find.", nil},
		{"GetSecretValue", secretOf("n"), 400, noValue, nil},
		{"PutSecretValue", secretOf("n", "secretData", "x"), 400, noPut, nil},
		{"UpdateSecretDesc", secretOf("n"), 400, "Cannot find secretName", nil},
		{"DeleteSecret", secretOf("n"), 400, noName, nil},
		{"DeleteSecret", secretOf("n", "forceDelete", "true"), 400, noName, nil},
		{"DescribeSecret", secretOf("n"), 200, "Describe secrets success.", m{}},
		{"ListSecretVersionIds", secretOf("n"), 200, "List secret versionIds success.", m{"secretName": "n", "totalCount": 0, "versionIds": []any{}}},
		{"ListSecrets", secretOf("n"), 200, "List secrets success.", m{"totalCount": 0, "secretList": []any{}}},
		{"ListSecrets", nil, 200, "List secrets success.", m{"totalCount": 0, "secretList": []any{}}},
		{"CreateSecret", secretOf("n", "secretData", "new"), 200, "The n create success.", nil},
		{"GetSecretValue", secretOf("n"), 200, "successful", m{"secretName": "n", "secretData": "new", "versionId": 1, "createTime": at(h.now)}},
	})
	if n := h.versions(c); n != 1 {
		t.Errorf("%d versions are stored, want that of the new secret alone", n)
	}
}

func TestDefaultRecoveryPeriod(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "v1"))
	want(t, "delete", c.do(0, "DeleteSecret", secretOf("n")), 200, "The n will be deleted after 30 days.")
	if r := c.mustDo("DescribeSecret", secretOf("n")); r.Result["plannedDeleteTime"] != at(h.now.Add(30*day)) {
		t.Errorf("got %v, want a date in 30 days", r.Result)
	}
}

// TestPurge has secrets of many versions: nothing of them may remain.
func TestPurge(t *testing.T) {
	for _, versions := range []int{1, 26, 501} {
		t.Run(fmt.Sprint(versions), func(t *testing.T) {
			h, d := newHost(t)
			c := h.enroll()
			for _, name := range []string{"n", "other"} {
				c.mustDo("CreateSecret", secretOf(name, "secretData", "v1"))
			}
			for range versions - 1 {
				c.mustDo("PutSecretValue", secretOf("n", "secretData", "v"))
			}
			if n := h.versions(c); n != versions+1 {
				t.Fatalf("%d versions are stored, want %d", n, versions+1)
			}
			if n := len(c.mustDo("ListSecretVersionIds", secretOf("n")).Result["versionIds"].([]any)); n != versions {
				t.Errorf("%d versions are listed, want %d", n, versions)
			}
			c.mustDo("DeleteSecret", secretOf("n", "recoveryPeriod", 1))
			early := h.secretRef(c, "n")
			h.now = h.now.Add(day - time.Millisecond)
			if n, code := h.purge(t, 0, early); n != 0 || code != 500 {
				t.Errorf("purge before its time: got %d writes, code %d, want none and 500", n, code)
			}
			h.now = h.now.Add(time.Millisecond)
			if n, code := h.purge(t, 0, early); n != 2 || code != 200 {
				t.Errorf("purge: got %d writes, code %d, want 2 and 200", n, code)
			}
			if n := h.versions(c); n != 1 {
				t.Errorf("%d versions are left, want that of the other secret", n)
			}
			h.checkBuried(t, d, c, "n")
			if n, _ := h.purge(t, 0, h.secretRef(c, "n")); n != 0 {
				t.Errorf("a second purge makes %d writes", n)
			}
			c.mustDo("CreateSecret", secretOf("n", "secretData", "new"))
			if got := c.mustDo("GetSecretValue", secretOf("other")).text("secretData"); got != "v1" {
				t.Errorf("the other secret has %q", got)
			}
		})
	}
}

// checkBuried looks into the record of a secret that is gone.
func (h *host) checkBuried(t testing.TB, d domain, c *tenant, name string) {
	t.Helper()
	id := c.secretRecord(name)
	w := h.rows[id]
	s, err := record.OpenSecret(d.keys, record.Header{ID: id, Revision: w.Revision}, w.Sealed)
	if want := (record.Secret{State: record.Destroyed, Modified: h.now.UnixMilli()}); err != nil || s != want {
		t.Errorf("record of %s: got %+v, %v, want %+v", name, s, err, want)
	}
	if !w.Hidden || w.Due != 0 {
		t.Errorf("record of %s: hidden %v, due %d, want it hidden and not due", name, w.Hidden, w.Due)
	}
}

func TestForcedDeletion(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "v1", "description", "d"))
	for range 600 {
		c.mustDo("PutSecretValue", secretOf("n", "secretData", "v"))
	}
	c.mustDo("DeleteSecret", secretOf("n")) // one that is to be deleted can be deleted at once
	c.mustDo("DeleteSecret", secretOf("n", "forceDelete", "true"))
	if n := h.versions(c); n != 0 {
		t.Errorf("%d versions are left, want none", n)
	}
	h.checkBuried(t, d, c, "n")
}

// TestPurgeRefused has offers of a host that wants a secret gone, or back.
func TestPurgeRefused(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	key := c.createKey()
	for _, name := range []string{"n", "planned", "restored"} {
		c.mustDo("CreateSecret", secretOf(name, "secretData", "v1"))
	}
	c.mustDo("DeleteSecret", secretOf("restored", "recoveryPeriod", 1))
	older := h.secretRef(c, "restored")
	c.mustDo("RestoreSecret", secretOf("restored"))
	c.mustDo("DeleteSecret", secretOf("planned", "recoveryPeriod", 365))
	h.now = h.now.Add(364 * day)
	altered := h.secretRef(c, "planned")
	altered.Sealed = append([]byte(nil), altered.Sealed...)
	altered.Sealed[130] ^= 1
	other := h.secretRef(c, "planned")
	other.ID = c.secretRecord("n")
	asSecret := h.ref(c.keyRecord(key), true)
	asSecret.ID.Type = wire.Secret
	for name, f := range map[string]wire.Ref{
		"not to be deleted":         h.secretRef(c, "n"),
		"not yet due":               h.secretRef(c, "planned"),
		"older state of a restored": older,
		"altered":                   altered,
		"another name":              other,
		"a key":                     h.ref(c.keyRecord(key), true),
		"a key as a secret":         asSecret,
		"an app":                    h.ref(appID(c.id()), true),
		"without bytes":             h.ref(c.secretRecord("n"), false),
		"no such secret":            {ID: c.secretRecord("none")},
	} {
		before := len(h.frames)
		if n, code := h.purge(t, 0, f); n != 0 || code != 500 {
			t.Errorf("%s: got %d writes, code %d, want none and 500", name, n, code)
		}
		if len(h.frames) == before {
			t.Errorf("%s: the refusal is not in the trail", name)
		}
	}
	for _, name := range []string{"n", "restored"} {
		if got := c.mustDo("GetSecretValue", secretOf(name)).text("secretData"); got != "v1" {
			t.Errorf("%s: got %q after all", name, got)
		}
	}
	// A restarted core goes by the date in the record as well.
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	if n, _ := h.purge(t, 1, h.secretRef(c, "planned")); n != 0 {
		t.Errorf("not yet due on another core: got %d writes", n)
	}
	c.mustDo("RestoreSecret", secretOf("planned"))
}

// TestPurgeMeetsRestore has a node with a late clock restore a secret while it is
// being purged on another: the purge must not be stored over it.
func TestPurgeMeetsRestore(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "v1"))
	c.mustDo("DeleteSecret", secretOf("n", "recoveryPeriod", 1))
	f := h.secretRef(c, "n")
	h.now = h.now.Add(day)
	a, err := h.cores[0].Sweep(context.Background(), &wire.Sweep{RequestID: "p", Secret: f})
	if err != nil || a.Kind != wire.Pending {
		t.Fatalf("Sweep: got %+v, %v", a, err)
	}
	w := h.rows[f.ID]
	w.Expected, w.Revision = w.Revision, w.Revision+1
	h.rows[f.ID] = w
	if outcome := h.store(a); outcome != wire.Conflict {
		t.Errorf("the purge is stored over a newer state: outcome %d", outcome)
	}
	if n := h.versions(c); n != 1 {
		t.Errorf("%d versions are left, want 1", n)
	}
	if _, err := h.resolve(0, a.Handle, wire.Conflict); err != nil {
		t.Error(err)
	}
}

func TestSweepOfKeysAndSecret(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "v1"))
	keys := make([]wire.Ref, wire.SweepStep+1)
	if _, err := h.cores[0].Sweep(context.Background(), &wire.Sweep{Keys: keys, Secret: h.secretRef(c, "n")}); err == nil {
		t.Error("a message over the limit is executed")
	}
}
