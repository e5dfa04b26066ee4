package core

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// A domain is what the cores of a test share.
type domain struct {
	dir        string
	platform   tee.Platform
	keys       *domainkey.Keyring
	state      *manifest.State
	settings   manifest.Settings // of state, unless a test says otherwise
	frank      manifest.Person   // the first administrator
	custodians *manifest.Quorum
}

func newDomain(t testing.TB) domain {
	t.Helper()
	return newDomainAt(t, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
}

func newDomainAt(t testing.TB, created time.Time) domain {
	t.Helper()
	dir := t.TempDir()
	p, err := sim.Open(filepath.Join(dir, "sim"), tee.ProductCore, 1)
	if err != nil {
		t.Fatal(err)
	}
	d := domain{dir: filepath.Join(dir, "domain"), platform: p}
	draft, operator, err := manifest.ThrowAway(manifest.Defaults(manifest.Development))
	if err != nil {
		t.Fatal(err)
	}
	if err := domainkey.Create(d.dir, p, draft, created, operator); err != nil {
		t.Fatal(err)
	}
	if d.keys, d.state, err = domainkey.Open(d.dir, p, secret.NewHeap()); err != nil {
		t.Fatal(err)
	}
	d.settings, d.frank = d.state.Settings, manifest.Person{Name: "frank", Key: adminKey("frank").Public().(ed25519.PublicKey)}
	return d
}

func (d domain) start(t testing.TB, h *host, l Limits) *Core {
	t.Helper()
	c, err := New(Config{Platform: d.platform, Keys: d.keys, Settings: d.settings, Administrator: d.frank, Custodians: d.custodians, Date: d.state.Date, Limits: l, Version: "test", Clock: func() time.Time { return h.now }})
	if err != nil {
		t.Fatal(err)
	}
	if s := h.show(c); s.Trouble != "" {
		t.Fatal(s.Trouble)
	}
	return c
}

// host is a manager as small as it can be, which stores records in a map. By
// default it is honest; its fields make it misbehave.
type host struct {
	t      testing.TB
	cores  []*Core
	now    time.Time
	relist func([]wire.Ref) []wire.Ref // what it makes of a listing; nil: nothing

	mu      sync.Mutex
	rows    map[wire.RecordID]wire.Write
	history []wire.Write // every write ever returned, stored or not
	replays map[wire.Tag]bool
	log     []byte // of negative facts
	floor   uint32 // least DomainKey version of records that are stored; 0: any
	frames  []byte // audit
	calls   []*wire.Call

	// outcome overrides the store's. An answer is not resolved at all if it
	// returns unresolved.
	outcome func(a *wire.Answer) wire.Outcome
	// collate answers the core's questions for collateral; nil: there is none.
	collate func(wire.CollateralQuery) []byte
	// edit alters a reference before it goes to the core.
	edit func(*wire.Ref)
	// handles are those of answers that were not resolved.
	handles []uint64
}

const unresolved wire.Outcome = 0

// newHost starts a domain and a host with one core.
func newHost(t testing.TB) (*host, domain) {
	d := newDomain(t)
	return d.host(t, Limits{}), d
}

// host starts a host with one core.
func (d domain) host(t testing.TB, l Limits) *host {
	return d.hostAt(t, l, time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC))
}

func (d domain) hostAt(t testing.TB, l Limits, now time.Time) *host {
	h := &host{t: t, now: now, rows: map[wire.RecordID]wire.Write{}, replays: map[wire.Tag]bool{}}
	h.cores = []*Core{d.start(t, h, l)}
	return h
}

func (h *host) ref(id wire.RecordID, withBytes bool) wire.Ref {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := wire.Ref{ID: id}
	if w, ok := h.rows[id]; ok {
		r.Revision, r.Tag = w.Revision, w.Tag()
		if withBytes {
			r.Sealed = w.Sealed
		}
	}
	if h.edit != nil {
		h.edit(&r)
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
	if name := v.Get("payload").Get("secretName").Text(); name != "" {
		ids = append(ids, wire.RecordID{Type: wire.Secret, Tenant: tenant, ID: wire.SecretID(tenant, name)})
	}
	return ids
}

func (h *host) call(core int, c *wire.Call) *wire.Answer {
	h.t.Helper()
	a, err := h.try(core, c)
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

var errNeeds = errors.New("the core asks for records again and again")

// try lets a core execute a call and returns the answer with the reply. That of
// a pending answer that was not resolved has none.
func (h *host) try(core int, c *wire.Call) (*wire.Answer, error) {
	ids := h.named(c.Body)
	h.mu.Lock()
	c.RequestID = "r" + strconv.Itoa(len(h.calls))
	h.calls = append(h.calls, c)
	h.mu.Unlock()
	needs, conflicts := 0, 0
	for {
		c.Records = nil
		h.mu.Lock()
		c.Floor = h.floor
		h.mu.Unlock()
		for _, id := range ids {
			c.Records = append(c.Records, h.ref(id, c.Fresh))
		}
		a, err := h.cores[core].Call(context.Background(), c)
		if err != nil {
			return nil, err
		}
		if a.Kind == wire.Need {
			if needs++; needs == 4 {
				return nil, errNeeds
			}
			c.Again++
			if a.NeedFacts {
				if s := h.show(h.cores[core]); s.Trouble != "" {
					return nil, errors.New(s.Trouble)
				}
				continue
			}
			for _, id := range a.NeedRecords {
				if !slices.Contains(ids, id) {
					ids = append(ids, id)
				}
			}
			if q := a.NeedList; q != nil {
				c.Listed, c.Listing = true, h.list(*q)
				if h.relist != nil {
					c.Listing = h.relist(c.Listing)
				}
			}
			if q := a.NeedCollateral; q != nil {
				c.Collated = true
				if h.collate != nil {
					c.Collateral = h.collate(*q)
				}
				continue
			}
			c.Fresh = true
			continue
		}
		end, err := h.settle(core, a)
		if err != nil || end.Kind != wire.Final || end.Reply != nil || conflicts == 4 {
			return end, err
		}
		conflicts++ // once more, with what the other one has stored
		h.show(h.cores[core])
		needs, c.Fresh, c.Listed, c.Listing = 0, true, false, nil
	}
}

// show shows a core the rest of the log.
func (h *host) show(c *Core) wire.FactsState {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.showFrom(c, c.facts.Head().Count)
}

// showFrom shows the log behind an entry. The caller must hold h.mu.
func (h *host) showFrom(c *Core, after uint64) wire.FactsState {
	at := min(int(after)*wire.FactSize, len(h.log))
	s, err := c.Facts(context.Background(), &wire.Facts{First: after + 1, Entries: h.log[at:], End: true})
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *host) list(q wire.Query) (refs []wire.Ref) {
	h.mu.Lock()
	var ids []wire.RecordID
	for id, w := range h.rows {
		if q.Type == wire.App && id.Type == wire.App && bytes.Compare(id.ID[:], q.ID[:]) > 0 && !w.Hidden {
			ids = append(ids, id)
		} else if id.Type == q.Type && id.Tenant == q.Tenant && !w.Hidden && id.Type != wire.App {
			if q.ID == (wire.UUID{}) || q.ID == id.ID && id.Version > q.After {
				ids = append(ids, id)
			}
		}
	}
	h.mu.Unlock()
	slices.SortFunc(ids, func(a, b wire.RecordID) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	if q.Type == wire.App && len(ids) > q.Limit {
		ids = ids[:q.Limit]
	}
	for _, id := range ids {
		refs = append(refs, h.ref(id, true))
	}
	return refs
}

// settle hands the audit over and stores what an answer asks for.
func (h *host) settle(core int, a *wire.Answer) (*wire.Answer, error) {
	h.audit(a)
	if a.Kind != wire.Pending {
		return a, nil
	}
	outcome := h.store(a)
	if outcome == unresolved {
		h.handles = append(h.handles, a.Handle)
		return a, nil
	}
	return h.resolve(core, a.Handle, outcome)
}

func (h *host) resolve(core int, handle uint64, outcome wire.Outcome) (*wire.Answer, error) {
	end, err := h.cores[core].Resolve(context.Background(), wire.Resolve{Handle: handle, Outcome: outcome})
	if err == nil {
		h.audit(end)
	}
	return end, err
}

func (h *host) audit(a *wire.Answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.frames = append(h.frames, a.Audit.Frames...)
}

func (h *host) store(a *wire.Answer) wire.Outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.history = append(h.history, a.Writes...)
	if h.outcome != nil {
		outcome := h.outcome(a)
		if outcome == wire.Stored && h.follows(a.Facts) {
			h.log = append(h.log, a.Facts.Entries...)
		}
		return outcome
	}
	if a.Facts != nil && !h.follows(a.Facts) {
		return wire.Conflict
	}
	if a.Replay != nil && h.replays[a.Replay.Tag] {
		return wire.Replayed
	}
	for _, w := range a.Writes {
		if !w.Remove && h.rows[w.ID].Revision != w.Expected {
			return wire.Conflict
		}
		if wrapped, _ := wire.SealedVersions(w.Sealed); !w.Remove && wrapped < h.floor {
			return wire.Conflict
		}
	}
	for _, w := range a.Writes {
		switch {
		case w.Remove:
			h.remove(w.ID)
		case w.Rewrapped:
			row := h.rows[w.ID]
			row.Sealed = w.Sealed
			h.rows[w.ID] = row
		default:
			h.rows[w.ID] = w
		}
	}
	if a.Facts != nil {
		h.log = append(h.log, a.Facts.Entries...)
	}
	if a.Replay != nil {
		h.replays[a.Replay.Tag] = true
	}
	return wire.Stored
}

// follows reports whether there are facts, behind the last entry of the log.
func (h *host) follows(f *wire.NewFacts) bool {
	n := len(h.log)
	return f != nil && int(f.First-1)*wire.FactSize == n && (n == 0 || [16]byte(h.log[n-16:]) == f.Previous)
}

// remove drops a record, or all versions of one. The caller must hold h.mu.
func (h *host) remove(id wire.RecordID) {
	for have := range h.rows {
		all := id.Version == 0 && have.Type == id.Type && have.Tenant == id.Tenant && have.ID == id.ID
		if have == id || all {
			delete(h.rows, have)
		}
	}
}

// tenant is a client with credentials.
type tenant struct {
	h             *host
	appid, apikey string
	nonce         int
}

func (c *tenant) id() wire.UUID {
	id, err := wire.ParseUUID(c.appid)
	if err != nil {
		c.h.t.Fatal(err)
	}
	return id
}

func (c *tenant) keyRecord(keyid string) wire.RecordID {
	id, err := wire.ParseUUID(keyid)
	if err != nil {
		c.h.t.Fatal(err)
	}
	return wire.RecordID{Type: wire.Key, Tenant: c.id(), ID: id}
}

type reply struct {
	Code    int
	Message string
	Result  map[string]any
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

// adopt stores the app record of a tenant with known credentials.
func (h *host) adopt(d domain, appid, apikey string) *tenant {
	h.t.Helper()
	c := &tenant{h: h, appid: appid, apikey: apikey}
	h.putApp(d, c, 1, record.App{State: record.Active, Created: h.now.UnixMilli()})
	return c
}

func (h *host) putApp(d domain, c *tenant, revision uint64, app record.App) {
	h.t.Helper()
	if app.Credentials == nil {
		app.Credentials = []record.Credential{record.FirstCredential(app.Created)}
	}
	h.putAppWith(d, c, revision, app, c.apikey)
}

// putAppWith stores an app record with the texts of its API keys.
func (h *host) putAppWith(d domain, c *tenant, revision uint64, app record.App, apiKeys ...string) {
	h.t.Helper()
	var texts []secret.Bytes
	for _, k := range apiKeys {
		texts = append(texts, secret.Copy([]byte(k)))
	}
	id := appID(c.id())
	sealed, err := record.SealApp(d.keys, record.Header{ID: id, Revision: revision}, app, texts)
	if err != nil {
		h.t.Fatal(err)
	}
	h.rows[id] = wire.Write{ID: id, Revision: revision, Sealed: sealed}
}

// alter stores the next revision of a key, as another node of the domain could.
func (h *host) alter(d domain, c *tenant, keyid string, change func(*record.Key)) {
	h.t.Helper()
	id := c.keyRecord(keyid)
	w := h.rows[id]
	k, err := record.OpenKey(d.keys, record.Header{ID: id, Revision: w.Revision}, w.Sealed)
	if err != nil {
		h.t.Fatal(err)
	}
	change(&k)
	w.Expected, w.Revision = w.Revision, w.Revision+1
	if w.Sealed, err = record.SealKey(d.keys, record.Header{ID: id, Revision: w.Revision}, k); err != nil {
		h.t.Fatal(err)
	}
	h.rows[id] = w
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
	return c.signText(string(b), canon.Skipping)
}

// signText adds the member sign to a request, computed over one of its forms.
func (c *tenant) signText(text string, form canon.Form) []byte {
	c.h.t.Helper()
	v, err := canon.Parse([]byte(text))
	if err != nil {
		c.h.t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(c.apikey))
	mac.Write(v.AppendCanonical(nil, form))
	return withSign(text, base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// withSign adds the member sign to the text of an object with members.
func withSign(text, sign string) []byte {
	return []byte(text[:len(text)-1] + `,"sign":"` + sign + `"}`)
}

// request is the text of a request with a fresh nonce, without its signature.
// payload is JSON; "" stands for none.
func (c *tenant) request(payload string) string {
	c.nonce++
	if payload != "" {
		payload = `,"payload":` + payload
	}
	return fmt.Sprintf(`{"appid":%q,"timestamp":"%d","nonce":"q%d"%s}`, c.appid, c.h.now.UnixMilli(), c.nonce, payload)
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
	return c.mustDo("CreateKey", newKey).text("keyid")
}

var newKey = map[string]any{"keyspec": "EH_AES_GCM_256", "origin": "EH_INTERNAL_KEY", "keyusage": "EH_KEYUSAGE_ENCRYPT_DECRYPT"}

// encrypts is the payload of an Encrypt with a key, and named that of actions
// which need no more than the key.
func encrypts(keyid string) map[string]any { return map[string]any{"keyid": keyid, "plaintext": hello} }
func named(keyid string) map[string]any    { return map[string]any{"keyid": keyid} }

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
