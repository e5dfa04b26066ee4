package core

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

// host is a manager as small as it can be, which stores records in a map. By
// default it is honest; its fields make it misbehave.
type host struct {
	t     testing.TB
	cores []*Core
	now   time.Time

	mu      sync.Mutex
	rows    map[wire.RecordID]wire.Write
	history []wire.Write // every write ever returned, stored or not
	replays map[wire.Tag]bool
	frames  []byte // audit
	calls   []*wire.Call

	outcome func(a *wire.Answer) wire.Outcome // overrides the store's
}

type domain struct {
	platform tee.Platform
	keys     *domainkey.Keyring
	genesis  genesis.Genesis
}

func newDomain(t testing.TB) domain {
	t.Helper()
	dir := t.TempDir()
	p, err := sim.Open(filepath.Join(dir, "sim"), tee.ProductCore, 1)
	if err != nil {
		t.Fatal(err)
	}
	g := genesis.Genesis{AllowSim: true, OpenEnrollment: true, RequestWindow: 600}
	if err := domainkey.Create(filepath.Join(dir, "domain"), p, g, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Fatal(err)
	}
	keys, g, err := domainkey.Open(filepath.Join(dir, "domain"), p)
	if err != nil {
		t.Fatal(err)
	}
	return domain{p, keys, g}
}

func (d domain) start(t testing.TB, h *host, l Limits) *Core {
	t.Helper()
	c, err := New(Config{Platform: d.platform, Keys: d.keys, Genesis: d.genesis, Limits: l, Version: "test", Clock: func() time.Time { return h.now }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newHost(t testing.TB) (*host, domain) {
	d := newDomain(t)
	h := &host{t: t, now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC), rows: map[wire.RecordID]wire.Write{}, replays: map[wire.Tag]bool{}}
	h.cores = []*Core{d.start(t, h, Limits{})}
	return h, d
}

func (h *host) ref(id wire.RecordID, withBytes bool) wire.Ref {
	h.mu.Lock()
	defer h.mu.Unlock()
	w, ok := h.rows[id]
	if !ok {
		return wire.Ref{ID: id}
	}
	r := wire.Ref{ID: id, Revision: w.Revision, Tag: w.Tag()}
	if withBytes {
		r.Sealed = w.Sealed
	}
	return r
}

// named guesses the records of a request, as the manager does.
func (h *host) named(body []byte) []wire.RecordID {
	v, err := canon.Parse(body)
	if err != nil {
		return nil
	}
	tenant, err := wire.ParseUUID(v.Get("appid").Text())
	if err != nil {
		return nil
	}
	ids := []wire.RecordID{appID(tenant)}
	if key, err := wire.ParseUUID(v.Get("payload").Get("keyid").Text()); err == nil {
		ids = append(ids, wire.RecordID{Type: wire.Key, Tenant: tenant, ID: key}, wire.RecordID{Type: wire.KeyVersion, Tenant: tenant, ID: key, Version: 1})
	}
	return ids
}

func (h *host) call(core int, c *wire.Call) *wire.Answer {
	h.t.Helper()
	ids := h.named(c.Body)
	c.RequestID = "r" + strconv.Itoa(len(h.calls))
	h.calls = append(h.calls, c)
	for round := range 4 {
		c.Records = nil
		c.Fresh = round > 0
		for _, id := range ids {
			c.Records = append(c.Records, h.ref(id, c.Fresh))
		}
		a, err := h.cores[core].Call(context.Background(), c)
		if err != nil {
			h.t.Fatal(err)
		}
		if a.Kind != wire.Need {
			return h.settle(core, a)
		}
		for _, id := range a.NeedRecords {
			if h.position(ids, id) < 0 {
				ids = append(ids, id)
			}
		}
		if q := a.NeedList; q != nil {
			c.Listed, c.Listing = true, h.list(*q)
		}
	}
	h.t.Fatal("the core asks for records again and again")
	return nil
}

func (h *host) position(ids []wire.RecordID, id wire.RecordID) int {
	for i := range ids {
		if ids[i] == id {
			return i
		}
	}
	return -1
}

func (h *host) list(q wire.Query) (refs []wire.Ref) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, w := range h.rows {
		if id.Type == q.Type && id.Tenant == q.Tenant && !w.Hidden {
			refs = append(refs, wire.Ref{ID: id, Revision: w.Revision, Tag: w.Tag(), Sealed: w.Sealed})
		}
	}
	return refs
}

// settle hands the audit over and stores what an answer asks for.
func (h *host) settle(core int, a *wire.Answer) *wire.Answer {
	h.t.Helper()
	h.frames = append(h.frames, a.Audit.Frames...)
	if a.Kind != wire.Pending {
		return a
	}
	outcome := h.store(a)
	if h.outcome != nil {
		outcome = h.outcome(a)
	}
	end, err := h.cores[core].Resolve(context.Background(), wire.Resolve{Handle: a.Handle, Outcome: outcome})
	if err != nil {
		h.t.Fatal(err)
	}
	h.frames = append(h.frames, end.Audit.Frames...)
	return end
}

func (h *host) store(a *wire.Answer) wire.Outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.history = append(h.history, a.Writes...)
	if h.outcome != nil {
		return wire.Failed
	}
	if a.Replay != nil && h.replays[a.Replay.Tag] {
		return wire.Replayed
	}
	for _, w := range a.Writes {
		if h.rows[w.ID].Revision != w.Expected {
			return wire.Conflict
		}
	}
	for _, w := range a.Writes {
		h.rows[w.ID] = w
	}
	if a.Replay != nil {
		h.replays[a.Replay.Tag] = true
	}
	return wire.Stored
}

// tenant is a client with credentials.
type tenant struct {
	h             *host
	appid, apikey string
	nonce         int
}

type reply struct {
	Code    int
	Message string
	Result  map[string]any
	mac     []byte
	answer  *wire.Answer
}

func (r reply) text(name string) string { s, _ := r.Result[name].(string); return s }

func parseReply(t testing.TB, a *wire.Answer) reply {
	t.Helper()
	var r reply
	if err := json.Unmarshal(a.Reply, &r); err != nil {
		t.Fatalf("reply %q: %v", a.Reply, err)
	}
	r.answer = a
	return r
}

func (h *host) enroll() *tenant {
	h.t.Helper()
	r := parseReply(h.t, h.call(0, &wire.Call{Action: "Enroll", Get: true}))
	if r.Code != 200 || r.Message != "successful" {
		h.t.Fatalf("Enroll: %+v", r)
	}
	return &tenant{h: h, appid: r.text("appid"), apikey: r.text("apikey")}
}

// body signs a request at the host's time, with a fresh nonce and without the
// signed action, as old clients do.
func (c *tenant) body(payload map[string]any) []byte {
	c.nonce++
	return c.sign(payload, c.h.now, fmt.Sprintf("n%d", c.nonce))
}

func (c *tenant) sign(payload map[string]any, at time.Time, nonce string) []byte {
	m := map[string]any{"appid": c.appid, "timestamp": strconv.FormatInt(at.UnixMilli(), 10)}
	if payload != nil {
		m["payload"] = payload
	}
	if nonce != "" {
		m["nonce"] = nonce
	}
	b, _ := json.Marshal(m)
	v, err := canon.Parse(b)
	if err != nil {
		c.h.t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(c.apikey))
	mac.Write(v.AppendCanonical(nil, canon.Skipping))
	m["sign"] = base64.StdEncoding.EncodeToString(mac.Sum(nil))
	b, _ = json.Marshal(m)
	return b
}

func (c *tenant) do(core int, action string, payload map[string]any) reply {
	c.h.t.Helper()
	return c.send(core, action, c.body(payload))
}

func (c *tenant) send(core int, action string, body []byte) reply {
	c.h.t.Helper()
	return parseReply(c.h.t, c.h.call(core, &wire.Call{Action: action, Body: body}))
}

func (c *tenant) mustDo(action string, payload map[string]any) reply {
	c.h.t.Helper()
	r := c.do(0, action, payload)
	if r.Code != 200 {
		c.h.t.Fatalf("%s: %d %s", action, r.Code, r.Message)
	}
	return r
}

func (c *tenant) createKey() string {
	c.h.t.Helper()
	return c.mustDo("CreateKey", map[string]any{"keyspec": "EH_AES_GCM_256", "origin": "EH_INTERNAL_KEY", "keyusage": "EH_KEYUSAGE_ENCRYPT_DECRYPT"}).text("keyid")
}

func want(t testing.TB, what string, r reply, code int, message string) {
	t.Helper()
	if r.Code != code || r.Message != message {
		t.Errorf("%s: got %d %q, want %d %q", what, r.Code, r.Message, code, message)
	}
	if code != 200 && len(r.Result) != 0 {
		t.Errorf("%s: an error reply has result %v", what, r.Result)
	}
}

var hello = base64.StdEncoding.EncodeToString([]byte("hello"))

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
	h.settle(0, a)
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
	report := trail.Verify([]trail.File{{Name: "t", Data: bytes.NewReader(h.frames), Size: int64(len(h.frames))}}, d.genesis.DomainKey, d.keys.Domain())
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

func TestSimulationNeedsTheGenesis(t *testing.T) {
	d := newDomain(t)
	d.genesis.AllowSim = false
	if _, err := New(Config{Platform: d.platform, Keys: d.keys, Genesis: d.genesis}); !errors.Is(err, domainkey.ErrSimulated) {
		t.Errorf("got %v, want ErrSimulated", err)
	}
}
