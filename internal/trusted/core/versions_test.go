package core

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// under names a key in the payload of an action that must be named.
func under(action, keyid string, more ...any) m {
	p := m{"action": action, "keyid": keyid}
	for i := 0; i < len(more); i += 2 {
		p[more[i].(string)] = more[i+1]
	}
	return p
}

func (r reply) number(name string) int { f, _ := r.Result[name].(float64); return int(f) }

func (r reply) truth(name string) bool { b, _ := r.Result[name].(bool); return b }

func (c *tenant) rotate(keyid string) reply { return c.mustDo("RotateKey", under("RotateKey", keyid)) }

// TestRotateSymmetric: what an old version has protected is read for as long as the
// owner wants it.
func TestRotateSymmetric(t *testing.T) {
	h, d := newHost(t)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	c := h.enroll()
	key := c.createKey()
	first := c.mustDo("Encrypt", m{"keyid": key, "plaintext": "b25l"}).text("ciphertext")
	for want := 2; want <= 3; want++ {
		if r := c.rotate(key); r.number("keyversion") != want {
			t.Errorf("got version %d, want %d", r.number("keyversion"), want)
		}
	}
	second := c.mustDo("Encrypt", m{"keyid": key, "plaintext": "dHdv", "keyversion": 2}).text("ciphertext")
	third := c.mustDo("Encrypt", m{"keyid": key, "plaintext": "dGhyZWU="}).text("ciphertext")
	for i, at := range []struct{ text, want string }{{first, "b25l"}, {second, "dHdv"}, {third, "dGhyZWU="}} {
		for core := range h.cores {
			if r := c.do(core, "Decrypt", m{"keyid": key, "ciphertext": at.text}); r.text("plaintext") != at.want {
				t.Errorf("ciphertext %d on core %d: got %v", i+1, core, r)
			}
		}
		if got := messageNumber(t, at.text); got != uint32(i+1) {
			t.Errorf("ciphertext %d is under version %d", i+1, got)
		}
	}
	for _, tt := range []struct {
		name, action string
		payload      m
		code         int
		want         string
	}{
		{"version to come", "Encrypt", m{"keyid": key, "plaintext": "b25l", "keyversion": 4}, 400, "keyversion error"},
		{"version 0", "Encrypt", m{"keyid": key, "plaintext": "b25l", "keyversion": -1}, 400, "Parameter invalid, The keyversion value must be greater than or equal to 1."},
		{"version as text", "Encrypt", m{"keyid": key, "plaintext": "b25l", "keyversion": "1"}, 400, "Parameter invalid, The keyversion must be of integer type."},
		{"action not named", "RotateKey", m{"keyid": key}, 400, "sign error"},
		{"no key", "RotateKey", under("RotateKey", ""), 400, "Missing required parameters, The keyid cannot be empty."},
		{"another key", "RotateKey", under("RotateKey", wire.NewUUID().String()), 400, "not find this keyid"},
		{"primary disabled", "DisableKeyVersion", under("DisableKeyVersion", key, "keyversion", 3), 400, "The primary version cannot be changed."},
		{"no such version disabled", "DisableKeyVersion", under("DisableKeyVersion", key, "keyversion", 9), 400, "keyversion error"},
		{"too high a least", "UpdateKey", under("UpdateKey", key, "leastDecrypt", 4), 400, "The primary version is the highest that can be the least."},
	} {
		if r := c.do(0, tt.action, tt.payload); r.Code != tt.code || r.Message != tt.want {
			t.Errorf("%s: got %d %q, want %d %q", tt.name, r.Code, r.Message, tt.code, tt.want)
		}
	}
	c.mustDo("DisableKeyVersion", under("DisableKeyVersion", key, "keyversion", 2))
	if r := c.do(1, "Decrypt", m{"keyid": key, "ciphertext": second}); r.Code != 400 || r.Message != textDecryption {
		t.Errorf("under a disabled version: got %d %q", r.Code, r.Message)
	}
	c.mustDo("EnableKeyVersion", under("EnableKeyVersion", key, "keyversion", 2))
	c.mustDo("Decrypt", m{"keyid": key, "ciphertext": second})
	c.mustDo("UpdateKey", under("UpdateKey", key, "leastDecrypt", 2, "leastEncrypt", 3))
	for text, ok := range map[string]bool{first: false, second: true, third: true} {
		if r := c.do(1, "Decrypt", m{"keyid": key, "ciphertext": text}); (r.Code == 200) != ok {
			t.Errorf("version %d with least version 2: got %d %q", messageNumber(t, text), r.Code, r.Message)
		}
	}
	batch := c.mustDo("BatchDecrypt", under("BatchDecrypt", key, "ciphertexts", []string{first, second}))
	if got := batch.Result["plaintexts"].([]any); got[0] != nil || got[1] != "dHdv" {
		t.Errorf("a batch of version 1 and 2 with least version 2: got %v", batch)
	}
	if r := c.do(0, "Encrypt", m{"keyid": key, "plaintext": "b25l", "keyversion": 2}); r.Message != "keyversion error" {
		t.Errorf("encryption below the least version: got %d %q", r.Code, r.Message)
	}
	c.mustDo("DisableKey", m{"keyid": key})
	if r := c.do(0, "RotateKey", under("RotateKey", key)); r.Message != "keyid is disabled" {
		t.Errorf("rotation of a disabled key: got %d %q", r.Code, r.Message)
	}
	external := c.createExternal("EH_AES_GCM_128")
	if r := c.do(0, "RotateKey", under("RotateKey", external)); r.Message != "The key's material is imported." {
		t.Errorf("rotation of an external key: got %d %q", r.Code, r.Message)
	}
}

func messageNumber(t *testing.T, text string) uint32 {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(b[17])<<24 | uint32(b[18])<<16 | uint32(b[19])<<8 | uint32(b[20])
}

// TestRotateAsymmetric: signatures and ciphertexts of asymmetric keys do not say
// which version made them.
func TestRotateAsymmetric(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	for _, spec := range []string{"EH_EC_P256", "EH_HMAC"} {
		key := c.mustCreate(spec, "EH_KEYUSAGE_SIGN_VERIFY")
		sign := m{"keyid": key, "message": "bWVzc2FnZQ==", "message_type": "EH_RAW", "digest_mode": "EH_SHA_256"}
		var signatures []string
		for range maxTried + 2 {
			signatures = append(signatures, c.mustDo("Sign", sign).text("signature"))
			c.rotate(key)
		}
		verify := func(i int, more ...any) reply {
			p := m{"signature": signatures[i]}
			for k, v := range sign {
				p[k] = v
			}
			for j := 0; j < len(more); j += 2 {
				p[more[j].(string)] = more[j+1]
			}
			return c.do(0, "Verify", p)
		}
		for i := range signatures {
			newest := i >= len(signatures)-maxTried
			if r := verify(i); r.Code != 200 || r.truth("result") != newest {
				t.Errorf("%s, signature of version %d of %d: got %v", spec, i+1, len(signatures)+1, r)
			}
			if r := verify(i, "keyversion", i+1); !r.truth("result") {
				t.Errorf("%s, version %d by number: got %v", spec, i+1, r)
			}
			if r := verify(i, "keyversion", i+2); r.Code != 200 || r.truth("result") {
				t.Errorf("%s, another version by number: got %v", spec, r)
			}
		}
		c.mustDo("UpdateKey", under("UpdateKey", key, "leastDecrypt", len(signatures)))
		last := len(signatures) - 1
		if r := verify(last - 1); r.truth("result") {
			t.Errorf("%s: a version below the least verifies", spec)
		}
		if r := verify(last-1, "keyversion", last); r.Message != "keyversion error" {
			t.Errorf("%s: a version below the least by number: got %v", spec, r)
		}
		if r := verify(last); !r.truth("result") {
			t.Errorf("%s: the least version does not verify: %v", spec, r)
		}
	}
	key := c.mustCreate("EH_EC_P256", "EH_KEYUSAGE_SIGN_VERIFY")
	first := c.publicKey(key)
	c.rotate(key)
	if c.publicKey(key) == first || c.mustDo("GetPublicKey", m{"keyid": key, "keyversion": 1}).text("pubkey") != first {
		t.Error("a new version has no public key of its own")
	}
	if r := c.do(0, "GetPublicKey", m{"keyid": key, "keyversion": 3}); r.Message != "keyversion error" {
		t.Errorf("public key of no version: got %v", r)
	}
	sm2 := c.mustCreate("EH_SM2", "EH_KEYUSAGE_ENCRYPT_DECRYPT")
	old := c.mustDo("AsymmetricEncrypt", m{"keyid": sm2, "plaintext": "b25l"}).text("ciphertext")
	c.rotate(sm2)
	if r := c.do(0, "AsymmetricDecrypt", m{"keyid": sm2, "ciphertext": old}); r.text("plaintext") != "b25l" {
		t.Errorf("SM2 ciphertext of an old version: got %v", r)
	}
	if r := c.do(0, "AsymmetricDecrypt", m{"keyid": sm2, "ciphertext": old, "keyversion": 2}); r.Message != textDecryption {
		t.Errorf("SM2 ciphertext of another version: got %v", r)
	}
}

// TestLife goes through the life of a key with a clock of its own.
func TestLife(t *testing.T) {
	h, d := newHost(t)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	c := h.enroll()
	key := c.createKey()
	text := c.mustDo("Encrypt", m{"keyid": key, "plaintext": "b25l"}).text("ciphertext")
	c.mustDo("UpdateKey", under("UpdateKey", key, "description", "invoices, Größe", "tags", m{"team": "post", "cost": "1"}, "deletionProtection", "on"))
	r := c.mustDo("DescribeKey", under("DescribeKey", key))
	if tags := r.Result["tags"].(map[string]any); r.text("description") != "invoices, Größe" || len(tags) != 2 || tags["team"] != "post" ||
		!r.truth("deletionProtection") || r.text("state") != "active" {
		t.Errorf("got %v", r)
	}
	for _, action := range []string{"DeleteKey", "ScheduleKeyDeletion"} {
		if r := c.do(0, action, under(action, key)); r.Message != "The key is protected from deletion." {
			t.Errorf("%s of a protected key: got %v", action, r)
		}
	}
	c.mustDo("DeleteAllKey", m{})
	c.mustDo("Decrypt", m{"keyid": key, "ciphertext": text})
	if a := h.sweepOf(c, h.ref(c.keyRecord(key), true)); len(a.Writes) != 0 {
		t.Error("a sweep marks a protected key")
	}
	protected := h.rows[c.keyRecord(key)]
	c.mustDo("UpdateKey", under("UpdateKey", key, "deletionProtection", "off"))
	c.mustDo("Decrypt", m{"keyid": key, "ciphertext": text}) // DeleteAllKey was before
	c.mustDo("DeleteAllKey", m{})
	newer := h.rows[c.keyRecord(key)]
	h.rows[c.keyRecord(key)] = protected
	h.show(h.cores[1])
	if r := c.do(1, "Decrypt", m{"keyid": key, "ciphertext": text}); r.Code == 200 {
		t.Error("an older state, which was protected, survives the deletion of all keys")
	}
	h.rows[c.keyRecord(key)] = newer
	c.mustDo("CancelKeyDeletion", under("CancelKeyDeletion", key))
	c.mustDo("Decrypt", m{"keyid": key, "ciphertext": text})

	r = c.mustDo("ScheduleKeyDeletion", under("ScheduleKeyDeletion", key, "days", 3))
	end := h.now.Add(3 * day).UnixMilli()
	if r.number("deletionDate") != int(end) || h.rows[c.keyRecord(key)].Due != end {
		t.Errorf("got %v, and the host is told %d, want %d", r, h.rows[c.keyRecord(key)].Due, end)
	}
	if r := c.do(0, "Decrypt", m{"keyid": key, "ciphertext": text}); r.Message != "keyid error" {
		t.Errorf("of a deleted key: got %v", r)
	}
	if r := c.mustDo("DescribeKey", under("DescribeKey", key)); r.text("state") != "pending-deletion" || r.number("deletionDate") != int(end) {
		t.Errorf("a key to be destroyed: got %v", r)
	}
	if n, code := h.purge(t, 0, h.ref(c.keyRecord(key), true)); n != 0 || code != 500 {
		t.Errorf("destruction before its time: got %d writes, code %d", n, code)
	}
	c.mustDo("CancelKeyDeletion", under("CancelKeyDeletion", key))
	c.mustDo("Decrypt", m{"keyid": key, "ciphertext": text})
	if n, code := h.purge(t, 0, h.ref(c.keyRecord(key), true)); n != 0 || code != 500 {
		t.Errorf("destruction of a key that is not deleted: got %d writes, code %d", n, code)
	}
	c.mustDo("ScheduleKeyDeletion", under("ScheduleKeyDeletion", key, "days", 3))
	before, version := h.rows[c.keyRecord(key)], versionRecord(c, key, 1)
	material := h.rows[version]
	h.now = h.now.Add(3 * day)
	if r := c.do(0, "CancelKeyDeletion", under("CancelKeyDeletion", key)); r.Message != "not find this keyid" {
		t.Errorf("cancel when the window is over: got %v", r)
	}
	if n, code := h.purge(t, 0, h.ref(c.keyRecord(key), true)); n != 3 || code != 200 {
		t.Fatalf("destruction: got %d writes, code %d, want 3 and 200", n, code)
	}
	if _, there := h.rows[version]; there {
		t.Error("the material is still stored")
	}
	if h.cores[0].versions.get(version) != nil {
		t.Error("the material is still in the cache")
	}
	if s := c.stateOf(key); s.State != record.Destroyed || s.Primary != 0 || s.Description != "" || s.Tags != nil {
		t.Errorf("the record is %+v", s)
	}
	// The host puts everything back, the clock too as far as it can.
	h.rows[c.keyRecord(key)], h.rows[version] = before, material
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	for core := range h.cores {
		for _, action := range []string{"CancelKeyDeletion", "DescribeKey"} {
			if r := c.do(core, action, under(action, key)); r.Code == 200 {
				t.Errorf("%s of a destroyed key on core %d: got %v", action, core, r)
			}
		}
	}
}

func versionRecord(c *tenant, key string, n uint32) wire.RecordID {
	id := c.keyRecord(key)
	return wire.RecordID{Type: wire.KeyVersion, Tenant: id.Tenant, ID: id.ID, Version: n}
}

// TestDueVersions has versions destroyed and made when their time has come.
func TestDueVersions(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	key := c.createKey()
	first := c.mustDo("Encrypt", m{"keyid": key, "plaintext": "b25l"}).text("ciphertext")
	c.rotate(key)
	c.mustDo("UpdateKey", under("UpdateKey", key, "rotationDays", 30))
	attend := func(want int) {
		t.Helper()
		n, code := h.purge(t, 0, h.ref(c.keyRecord(key), true))
		if n != want || (code == 200) != (want > 0) {
			t.Errorf("got %d writes, code %d, want %d", n, code, want)
		}
	}
	attend(0)
	c.mustDo("ScheduleKeyVersionDeletion", under("ScheduleKeyVersionDeletion", key, "keyversion", 1, "days", 10))
	if r := c.do(0, "Decrypt", m{"keyid": key, "ciphertext": first}); r.Message != textDecryption {
		t.Errorf("under a version to be destroyed: got %v", r)
	}
	c.mustDo("EnableKeyVersion", under("EnableKeyVersion", key, "keyversion", 1))
	c.mustDo("Decrypt", m{"keyid": key, "ciphertext": first})
	c.mustDo("ScheduleKeyVersionDeletion", under("ScheduleKeyVersionDeletion", key, "keyversion", 1, "days", 10))
	if due := h.rows[c.keyRecord(key)].Due; due != h.now.Add(10*day).UnixMilli() {
		t.Errorf("the host is told %d", due)
	}
	h.now = h.now.Add(10*day - time.Millisecond)
	attend(0)
	h.now = h.now.Add(time.Millisecond)
	attend(2)
	if _, there := h.rows[versionRecord(c, key, 1)]; there {
		t.Error("the material of a destroyed version is still stored")
	}
	if r := c.do(0, "EnableKeyVersion", under("EnableKeyVersion", key, "keyversion", 1)); r.Message != "keyversion error" {
		t.Errorf("a destroyed version is had back: %v", r)
	}
	h.now = h.now.Add(20 * day)
	attend(2)
	attend(0)
	if s := c.stateOf(key); s.Primary != 3 || s.Rotate != h.now.Add(30*day).UnixMilli() {
		t.Errorf("after its period the key is %+v", s)
	}
	c.mustDo("DisableKey", m{"keyid": key})
	h.now = h.now.Add(30 * day)
	attend(1)
	if s := c.stateOf(key); s.Primary != 3 || s.Rotate != h.now.Add(day).UnixMilli() {
		t.Errorf("a disabled key whose period is over is %+v", s)
	}
	external := c.createExternal("EH_AES_GCM_128")
	if r := c.do(0, "UpdateKey", under("UpdateKey", external, "rotationDays", 30)); r.Message != "The key's material is imported." {
		t.Errorf("period of an external key: got %v", r)
	}
	c.mustDo("UpdateKey", under("UpdateKey", key, "clear", []string{"rotation", "description"}))
	if due := h.rows[c.keyRecord(key)].Due; due != 0 {
		t.Errorf("without a period the host is told %d", due)
	}
}

// TestUpdateRefusals has what is no change of a key.
func TestUpdateRefusals(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	key := c.createKey()
	many := m{}
	for i := range record.MaxTags + 1 {
		many[strings.Repeat("t", i+1)] = "v"
	}
	for name, payload := range map[string]m{
		"description as number": under("UpdateKey", key, "description", 1),
		"long description":      under("UpdateKey", key, "description", strings.Repeat("d", record.MaxDescription+1)),
		"tags as list":          under("UpdateKey", key, "tags", []any{"a"}),
		"value as number":       under("UpdateKey", key, "tags", m{"a": 1}),
		"long name":             under("UpdateKey", key, "tags", m{strings.Repeat("a", record.MaxTagName+1): "v"}),
		"long value":            under("UpdateKey", key, "tags", m{"a": strings.Repeat("a", record.MaxTagValue+1)}),
		"many tags":             under("UpdateKey", key, "tags", many),
		"protection maybe":      under("UpdateKey", key, "deletionProtection", "may"),
		"long period":           under("UpdateKey", key, "rotationDays", record.MaxPeriod+1),
		"no tags":               under("UpdateKey", key, "tags", m{}),
		"unknown part":          under("UpdateKey", key, "clear", []string{"keyspec"}),
		"half a day":            under("UpdateKey", key, "rotationDays", 0.5),
		"unknown member":        under("UpdateKey", key, "spec", "EH_SM2"),
	} {
		if r := c.do(0, "UpdateKey", payload); r.Code != 400 {
			t.Errorf("%s: got %v", name, r)
		}
	}
	if s := c.stateOf(key); s.Modified != s.Created {
		t.Errorf("a refusal changed the key: %+v", s)
	}
}
