package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

func TestMainJob(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	for _, spec := range []string{"EH_AES_GCM_128", "EH_AES_GCM_192", "EH_AES_GCM_256"} {
		id := c.mustDo("CreateKey", map[string]any{"keyspec": spec, "origin": "EH_INTERNAL_KEY", "keyusage": "EH_KEYUSAGE_ENCRYPT_DECRYPT"}).text("keyid")
		ct := c.mustDo("Encrypt", map[string]any{"keyid": id, "plaintext": hello, "aad": hello}).text("ciphertext")
		pt := c.mustDo("Decrypt", map[string]any{"keyid": id, "ciphertext": ct, "aad": hello}).text("plaintext")
		if pt != hello {
			t.Errorf("%s: decrypts to %q", spec, pt)
		}
		want(t, "no aad", c.do(0, "Decrypt", map[string]any{"keyid": id, "ciphertext": ct}), 400, textDecryption)
		dk := c.mustDo("GenerateDataKey", map[string]any{"keyid": id, "keylen": 16})
		if pt := c.mustDo("Decrypt", map[string]any{"keyid": id, "ciphertext": dk.text("ciphertext")}).text("plaintext"); pt != dk.text("plaintext") || len(pt) != 24 {
			t.Errorf("%s: data key does not open", spec)
		}
		blind := c.mustDo("GenerateDataKeyWithoutPlaintext", map[string]any{"keyid": id, "keylen": 48})
		if _, ok := blind.Result["plaintext"]; ok {
			t.Error("a blind data key has a plaintext")
		}
	}
	if n := len(c.mustDo("ListKey", nil).Result["list"].([]any)); n != 3 {
		t.Errorf("ListKey: %d keys", n)
	}
}

func TestKeyStates(t *testing.T) {
	h, _ := newHost(t)
	c, other := h.enroll(), h.enroll()
	id := c.createKey()
	enc := map[string]any{"keyid": id, "plaintext": hello}
	key := map[string]any{"keyid": id}
	for range 2 {
		want(t, "disable", c.do(0, "DisableKey", key), 200, "successful")
	}
	want(t, "encrypt disabled", c.do(0, "Encrypt", enc), 400, "keyid is disabled")
	for range 2 {
		want(t, "enable", c.do(0, "EnableKey", key), 200, "successful")
	}
	want(t, "encrypt", c.do(0, "Encrypt", enc), 200, "success!")
	want(t, "foreign encrypt", other.do(0, "Encrypt", enc), 400, "keyid error")
	want(t, "foreign disable", other.do(0, "DisableKey", key), 400, "not find this keyid")
	want(t, "foreign delete", other.do(0, "DeleteKey", key), 200, "successful")
	want(t, "encrypt", c.do(0, "Encrypt", enc), 200, "success!")
	want(t, "delete", c.do(0, "DeleteKey", key), 200, "successful")
	want(t, "delete again", c.do(0, "DeleteKey", key), 200, "successful")
	want(t, "encrypt deleted", c.do(0, "Encrypt", enc), 400, "keyid error")
	want(t, "enable deleted", c.do(0, "EnableKey", key), 400, "not find this keyid")
	if n := len(c.mustDo("ListKey", nil).Result["list"].([]any)); n != 0 {
		t.Errorf("ListKey shows %d deleted keys", n)
	}
}

func TestDeleteAllKey(t *testing.T) {
	h, _ := newHost(t)
	c, other := h.enroll(), h.enroll()
	id, second, foreign := c.createKey(), c.createKey(), other.createKey()
	want(t, "delete all", c.do(0, "DeleteAllKey", nil), 200, "successful")
	for _, k := range []string{id, second} {
		want(t, "encrypt", c.do(0, "Encrypt", map[string]any{"keyid": k, "plaintext": hello}), 400, "keyid error")
	}
	want(t, "foreign", other.do(0, "Encrypt", map[string]any{"keyid": foreign, "plaintext": hello}), 200, "success!")
	fresh := c.createKey()
	want(t, "new key", c.do(0, "Encrypt", map[string]any{"keyid": fresh, "plaintext": hello}), 200, "success!")

	tenant, _ := wire.ParseUUID(c.appid)
	sweep := &wire.Sweep{RequestID: "s", App: h.ref(appID(tenant), true), Keys: h.list(wire.Query{Type: wire.Key, Tenant: tenant})}
	a, err := h.cores[0].Sweep(context.Background(), sweep)
	if err != nil || len(a.Writes) != 2 {
		t.Fatalf("Sweep: %d writes, %v", len(a.Writes), err)
	}
	if _, err := h.settle(0, a); err != nil {
		t.Fatal(err)
	}
	if left := h.list(wire.Query{Type: wire.Key, Tenant: tenant}); len(left) != 1 {
		t.Errorf("after the sweep %d keys are not hidden", len(left))
	}
	want(t, "new key after the sweep", c.do(0, "Encrypt", map[string]any{"keyid": fresh, "plaintext": hello}), 200, "success!")
}

func TestReplySignature(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	r := c.do(0, "ListKey", nil)
	if r.answer.Sign == "" {
		t.Fatal("an authenticated reply is not signed")
	}
	c.apikey = "another"
	if r := c.do(0, "ListKey", nil); r.answer.Sign != "" || r.Message != "sign error" {
		t.Errorf("unauthenticated reply %q has signature %q", r.Message, r.answer.Sign)
	}
}

func TestStoreOutcomes(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	id := c.createKey()
	body := c.body(map[string]any{"keyid": id})
	h.outcome = func(*wire.Answer) wire.Outcome { return wire.Failed }
	want(t, "store fails", c.send(0, "DisableKey", body), 400, "disableKey failed")
	h.outcome = nil
	want(t, "same request again", c.send(0, "DisableKey", body), 200, "successful")
	want(t, "and again", c.send(0, "DisableKey", body), 400, "Timestamp can't be repeated in 20 minutes")
	if _, err := h.cores[0].Resolve(context.Background(), wire.Resolve{Handle: 99, Outcome: wire.Stored}); err == nil {
		t.Error("an unknown handle resolves")
	}
}

func TestAuditTrail(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	id := c.createKey()
	c.do(0, "Encrypt", map[string]any{"keyid": id, "plaintext": hello})
	c.do(0, "Encrypt", map[string]any{"keyid": id, "plaintext": "?"})
	a, _ := h.cores[0].Checkpoint(context.Background())
	h.frames = append(h.frames, a.Audit.Frames...)
	report := trail.Verify([]trail.File{{Name: "t", Data: bytes.NewReader(h.frames), Size: int64(len(h.frames))}}, d.state.DomainKey, d.keys.Domain())
	if !report.Intact() {
		t.Errorf("trail: %+v", report)
	}
	var rows []string
	for rest := h.frames; len(rest) > 0; {
		f, more, err := trail.CutFrame(rest)
		if err != nil {
			t.Fatal(err)
		}
		e, _ := trail.Parse(f.Entry)
		rows, rest = append(rows, fmt.Sprint(e.Kind, e.Action, e.Code, e.Reason, e.Key.String() == id)), more
	}
	if got, want := fmt.Sprint(rows), "[start0false requestEnroll200okfalse requestCreateKey200oktrue requestEncrypt200oktrue requestEncrypt400invalid memberfalse checkpoint0false]"; got != want {
		t.Errorf("trail: got %s, want %s", got, want)
	}
}

func TestSimulationNeedsTheManifest(t *testing.T) {
	d := newDomain(t)
	d.settings.AllowSim = false
	if _, err := New(Config{Platform: d.platform, Keys: d.keys, Settings: d.settings}); !errors.Is(err, domainkey.ErrSimulated) {
		t.Errorf("got %v, want ErrSimulated", err)
	}
}
