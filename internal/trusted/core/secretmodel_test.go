package core

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// secretModel is what a tenant's secrets are, said as simply as can be.
type secretModel struct {
	rt    *rapid.T
	h     *host
	c     *tenant
	keys  map[string]bool // usable now, by id
	alive map[string]*modelSecret
}

type modelSecret struct {
	description, key string
	created, planned time.Time // planned is zero if there is no plan
	values           []string
	made             []time.Time
}

// get returns a secret that is not gone.
func (m *secretModel) get(name string) *modelSecret {
	s := m.alive[name]
	if s != nil && !s.planned.IsZero() && !m.h.now.Before(s.planned) {
		delete(m.alive, name)
		return nil
	}
	return s
}

func (m *secretModel) name() string {
	return rapid.SampledFrom([]string{"a", "b\n", " "}).Draw(m.rt, "name")
}

// expect sends a request and compares code, message and result.
func (m *secretModel) expect(action string, p map[string]any, code int, message string, result any) {
	m.rt.Helper()
	r := m.c.do(0, action, p)
	if r.Code != code || r.Message != message {
		m.rt.Fatalf("%s %v: got %d %q, want %d %q", action, p, r.Code, r.Message, code, message)
	}
	if result != nil && fmt.Sprint(r.Result) != fmt.Sprint(result) {
		m.rt.Fatalf("%s %v: got %v, want %v", action, p, r.Result, result)
	}
}

func (m *secretModel) create(*rapid.T) {
	name, value := m.name(), m.value()
	key := rapid.SampledFrom(append([]string{""}, slices.Sorted(maps.Keys(m.keys))...)).Draw(m.rt, "key")
	p := secretOf(name, "secretData", value, "description", value)
	if key != "" {
		p["encryptionKeyId"] = key
	}
	switch {
	case m.get(name) != nil:
		m.expect("CreateSecret", p, 400, taken, nil)
	case key != "" && !m.keys[key]:
		m.expect("CreateSecret", p, 400, "keyid is disabled", nil)
	default:
		m.expect("CreateSecret", p, 200, "The "+name+" create success.", nil)
		m.alive[name] = &modelSecret{
			description: value, key: key, created: m.h.now, values: []string{value}, made: []time.Time{m.h.now},
		}
	}
}

func (m *secretModel) value() string {
	return rapid.StringN(1, 20, -1).Draw(m.rt, "value")
}

func (m *secretModel) put(*rapid.T) {
	name, value := m.name(), m.value()
	p := secretOf(name, "secretData", value)
	switch s := m.get(name); {
	case s == nil:
		m.expect("PutSecretValue", p, 400, noPut, nil)
	case !s.planned.IsZero():
		m.expect("PutSecretValue", p, 400, "Can not put value for a deleted secret.", nil)
	case s.key != "" && !m.keys[s.key]:
		m.expect("PutSecretValue", p, 400, "keyid is disabled", nil)
	default:
		m.expect("PutSecretValue", p, 200, "The "+name+" new version put success.", nil)
		s.values, s.made = append(s.values, value), append(s.made, m.h.now)
	}
}

func (m *secretModel) update(*rapid.T) {
	name, value := m.name(), m.value()
	p := secretOf(name, "description", value)
	switch s := m.get(name); {
	case s == nil:
		m.expect("UpdateSecretDesc", p, 400, "Cannot find secretName", nil)
	case !s.planned.IsZero():
		m.expect("UpdateSecretDesc", p, 400, "Can not modify a deleted secret.", nil)
	default:
		m.expect("UpdateSecretDesc", p, 200, "Update secret description success.", nil)
		s.description = value
	}
}

func (m *secretModel) schedule(*rapid.T) {
	name, days := m.name(), rapid.IntRange(1, 365).Draw(m.rt, "days")
	p := secretOf(name, "recoveryPeriod", days)
	s := m.get(name)
	if s == nil {
		m.expect("DeleteSecret", p, 400, noName, nil)
		return
	}
	m.expect("DeleteSecret", p, 200, fmt.Sprintf("The %s will be deleted after %d days.", name, days), nil)
	s.planned = m.h.now.Add(time.Duration(days) * day)
}

func (m *secretModel) force(*rapid.T) {
	name := m.name()
	p := secretOf(name, "force_delete", true)
	if m.get(name) == nil {
		m.expect("DeleteSecret", p, 400, noName, nil)
		return
	}
	m.expect("DeleteSecret", p, 200, "The "+name+" delete success", nil)
	delete(m.alive, name)
}

func (m *secretModel) restore(*rapid.T) {
	name := m.name()
	s := m.get(name)
	if s == nil {
		m.expect("RestoreSecret", secretOf(name), 400, "Can not restore secret, the secretName not find.", nil)
		return
	}
	m.expect("RestoreSecret", secretOf(name), 200, "The "+name+" restore success.", nil)
	s.planned = time.Time{}
}

func (m *secretModel) read(*rapid.T) {
	name := m.name()
	p, s := secretOf(name), m.get(name)
	if s == nil || !s.planned.IsZero() {
		m.expect("GetSecretValue", p, 400, "Can't find the "+name+"'s value.", nil)
		return
	}
	number := rapid.IntRange(0, len(s.values)+1).Draw(m.rt, "version")
	if number != 0 {
		p["versionId"] = number
	} else {
		number = len(s.values)
	}
	switch {
	case number > len(s.values):
		m.expect("GetSecretValue", p, 200, "successful", map[string]any{})
	case s.key != "" && !m.keys[s.key]:
		m.expect("GetSecretValue", p, 400, "keyid is disabled", nil)
	default:
		m.expect("GetSecretValue", p, 200, "successful", map[string]any{
			"secretName": name, "secretData": s.values[number-1], "versionId": number, "createTime": at(s.made[number-1]),
		})
	}
}

// toggle disables a key or enables it again.
func (m *secretModel) toggle(*rapid.T) {
	key := rapid.SampledFrom(slices.Sorted(maps.Keys(m.keys))).Draw(m.rt, "key")
	action := "DisableKey"
	if m.keys[key] = !m.keys[key]; m.keys[key] {
		action = "EnableKey"
	}
	m.expect(action, named(key), 200, "successful", nil)
}

func (m *secretModel) deleteAllKeys(*rapid.T) {
	for _, s := range m.alive {
		if s.key != "" {
			return // their values would be lost
		}
	}
	m.expect("DeleteAllKey", nil, 200, "successful", nil)
	m.keys = map[string]bool{m.c.createKey(): true}
}

// wait lets time pass, to the very millisecond of a plan or not.
func (m *secretModel) wait(*rapid.T) {
	step := time.Duration(rapid.IntRange(0, 200*24).Draw(m.rt, "hours")) * time.Hour
	for _, name := range slices.Sorted(maps.Keys(m.alive)) {
		if s := m.alive[name]; !s.planned.IsZero() && rapid.Bool().Draw(m.rt, "to the plan") {
			step = max(0, s.planned.Sub(m.h.now)-time.Duration(rapid.IntRange(0, 1).Draw(m.rt, "before"))*time.Millisecond)
		}
	}
	m.h.now = m.h.now.Add(step)
}

// purge is the manager's background work.
func (m *secretModel) purge(*rapid.T) {
	for id, w := range m.h.rows {
		if id.Type == wire.Secret && w.Due != 0 && w.Due <= m.h.now.UnixMilli() {
			if n, code := m.h.purge(m.h.t, 0, m.h.ref(id, true)); n != 2 || code != 200 {
				m.rt.Fatalf("purge: got %d writes, code %d", n, code)
			}
		}
	}
}

// restart goes on with a core that has seen nothing.
func (m *secretModel) restart(d domain) func(*rapid.T) {
	return func(*rapid.T) { m.h.cores[0] = d.start(m.h.t, m.h, Limits{}) }
}

// check compares a secret and the listings, and what is stored when the background
// work has been done.
func (m *secretModel) check(*rapid.T) {
	m.describe(m.name())
	m.purge(nil)
	count, versions := 0, 0
	for _, name := range []string{"a", "b\n", " "} {
		if s := m.get(name); s != nil {
			count, versions = count+1, versions+len(s.values)
		}
	}
	if r := m.c.do(0, "ListSecrets", nil); r.Code != 200 || r.Result["totalCount"] != float64(count) {
		m.rt.Fatalf("ListSecrets: got %d %v, want %d secrets", r.Code, r.Result, count)
	}
	if n := m.h.versions(m.c); n != versions {
		m.rt.Fatalf("%d versions are stored, want %d", n, versions)
	}
}

func (m *secretModel) describe(name string) {
	described, ids := map[string]any{}, []any{}
	if s := m.get(name); s != nil {
		planned, rotated := 0.0, 0.0
		if !s.planned.IsZero() {
			planned = at(s.planned)
		} else {
			for i, made := range s.made {
				ids = append(ids, map[string]any{"versionId": i + 1, "createTime": at(made)})
			}
		}
		if len(s.made) > 1 {
			rotated = at(s.made[len(s.made)-1])
		}
		described = map[string]any{
			"secretName": name, "description": s.description, "createTime": at(s.created), "plannedDeleteTime": planned,
			"rotationInterval": "", "rationalInterval": "", "lastRotationDate": rotated, "nextRotationDate": 0,
		}
	}
	m.expect("DescribeSecret", secretOf(name), 200, "Describe secrets success.", described)
	m.expect("ListSecretVersionIds", secretOf(name), 200, "List secret versionIds success.",
		map[string]any{"secretName": name, "totalCount": len(ids), "versionIds": ids})
}

// TestSecretModel plays random lives of three secrets of a tenant and compares
// each reply with the model.
func TestSecretModel(t *testing.T) {
	d := newDomain(t)
	rapid.Check(t, func(rt *rapid.T) {
		if raceEnabled && rapid.IntRange(0, 4).Draw(rt, "thin") != 0 {
			return
		}
		h := d.host(t, Limits{})
		m := &secretModel{rt: rt, h: h, c: h.enroll(), keys: map[string]bool{}, alive: map[string]*modelSecret{}}
		m.keys[m.c.createKey()] = true
		rt.Repeat(map[string]func(*rapid.T){
			"create": m.create, "put": m.put, "put again": m.put, "update": m.update, "schedule": m.schedule, "force": m.force,
			"restore": m.restore, "read": m.read, "read again": m.read, "toggle": m.toggle, "delete all keys": m.deleteAllKeys,
			"wait": m.wait, "purge": m.purge, "restart": m.restart(d), "": m.check,
		})
	})
}
