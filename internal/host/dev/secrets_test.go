package dev

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/host/auditsink"
	"github.com/ehsm-kms/ehsm/internal/host/relay"
	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/host/store/sqlite"
	"github.com/ehsm-kms/ehsm/internal/trusted/core"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A rig is a relay between a real core, a real store and a real sink. The core
// has a clock of its own, and messages go through their encoding.
type rig struct {
	t     testing.TB
	relay *relay.Relay
	store *watchedStore
	core  *codedCore
	sink  *auditsink.Sink
	shift atomic.Int64 // of the core's clock, nanoseconds

	tenant, key string
	nonce       atomic.Int64
}

// codedCore has every message encoded and decoded, as over a stream, and counts
// calls.
type codedCore struct {
	*core.Core
	calls atomic.Int64
}

func (c *codedCore) Call(ctx context.Context, call *wire.Call) (*wire.Answer, error) {
	c.calls.Add(1)
	call, err := wire.DecodeCall(call.Append(nil))
	if err != nil {
		return nil, err
	}
	return coded(c.Core.Call(ctx, call))
}

func (c *codedCore) Resolve(ctx context.Context, r wire.Resolve) (*wire.Answer, error) {
	return coded(c.Core.Resolve(ctx, r))
}

func (c *codedCore) Sweep(ctx context.Context, s *wire.Sweep) (*wire.Answer, error) {
	s, err := wire.DecodeSweep(s.Append(nil))
	if err != nil {
		return nil, err
	}
	return coded(c.Core.Sweep(ctx, s))
}

func coded(a *wire.Answer, err error) (*wire.Answer, error) {
	if err != nil {
		return nil, err
	}
	return wire.DecodeAnswer(a.Append(nil))
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, StoreFile), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	st := &watchedStore{Store: db}
	r := openRig(t, dir, true, st)
	r.store = st
	result := r.send(relay.Request{ID: "r", Action: "Enroll", Get: true})
	r.tenant, r.key = result["appid"].(string), result["apikey"].(string)
	return r
}

// openRig starts a node of the domain in dir, which it makes if it is the first.
// Its core's clock is two days behind.
func openRig(t testing.TB, dir string, first bool, st relay.Store) *rig {
	t.Helper()
	r := &rig{t: t}
	r.shift.Store(int64(-48 * time.Hour))
	clock := func() time.Time { return time.Now().Add(time.Duration(r.shift.Load())) }
	machine, err := sim.Open(filepath.Join(dir, SimDir), tee.ProductCore, coreSVN)
	if err != nil {
		t.Fatal(err)
	}
	c, err := openCore(Options{Dir: dir, Clock: clock, Log: slog.New(slog.DiscardHandler)}, machine, first, secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	r.core = &codedCore{Core: c}
	if r.sink, err = auditsink.Open(t.TempDir(), auditsink.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.sink.Close() })
	r.relay = relay.New(r.core, st, r.sink, relay.Options{})
	return r
}

// send sends a request that must succeed and returns its result.
func (r *rig) send(q relay.Request) map[string]any {
	r.t.Helper()
	p, err := r.relay.Do(r.t.Context(), q)
	var reply struct {
		Message string
		Result  map[string]any
	}
	if e := json.Unmarshal(p.Body, &reply); e != nil || err != nil || p.Code != 200 {
		r.t.Errorf("%s: got %s, %v, %v", q.Action, p.Body, err, e)
	}
	return reply.Result
}

// do signs and sends a request with the members given as name and value in turn.
func (r *rig) do(action string, more ...any) map[string]any {
	r.t.Helper()
	payload := map[string]any{"action": action}
	for i := 0; i < len(more); i += 2 {
		payload[more[i].(string)] = more[i+1]
	}
	at := time.Now().Add(time.Duration(r.shift.Load())).UnixMilli()
	m := map[string]any{
		"appid": r.tenant, "timestamp": strconv.FormatInt(at, 10), "nonce": strconv.FormatInt(r.nonce.Add(1), 10), "payload": payload,
	}
	b, _ := json.Marshal(m)
	v, err := canon.Parse(b)
	if err != nil {
		r.t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(r.key))
	mac.Write(v.AppendCanonical(nil, canon.Skipping))
	m["sign"] = base64.StdEncoding.EncodeToString(mac.Sum(nil))
	b, _ = json.Marshal(m)
	return r.send(relay.Request{ID: "r", Action: action, Body: b})
}

// due counts the secrets that are to be purged now.
func (r *rig) due() int {
	r.t.Helper()
	ids, err := r.store.Due(r.t.Context(), time.Now().UnixMilli(), 100)
	if err != nil {
		r.t.Fatal(err)
	}
	return len(ids)
}

func TestSecretsInOneRoundTrip(t *testing.T) {
	r := newRig(t)
	r.do("CreateSecret", "secretName", "n", "secretData", "v1")
	for _, row := range []struct {
		name  string
		calls int64
		do    func()
	}{
		{"read after creation", 1, func() { r.do("GetSecretValue", "secretName", "n") }},
		{"read again", 1, func() { r.do("GetSecretValue", "secretName", "n") }},
		{"put", 1, func() { r.do("PutSecretValue", "secretName", "n", "secretData", "v2") }},
		{"read after a put", 1, func() { r.do("GetSecretValue", "secretName", "n") }},
		{"read the first version", 2, func() { r.do("GetSecretValue", "secretName", "n", "versionId", 1) }},
		{"read it again", 1, func() { r.do("GetSecretValue", "secretName", "n", "versionId", 1) }},
		{"describe", 1, func() { r.do("DescribeSecret", "secretName", "n") }},
		{"list", 2, func() { r.do("ListSecrets") }},
	} {
		before := r.core.calls.Load()
		row.do()
		if n := r.core.calls.Load() - before; n != row.calls {
			t.Errorf("%s: got %d calls, want %d", row.name, n, row.calls)
		}
	}
}

// TestConcurrentPuts has many clients put values at the same time: all succeed,
// each with a number of its own.
func TestConcurrentPuts(t *testing.T) {
	r := newRig(t)
	r.do("CreateSecret", "secretName", "n", "secretData", "v0")
	const clients = 24
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() { r.do("PutSecretValue", "secretName", "n", "secretData", fmt.Sprint("v", i+1)) })
	}
	wg.Wait()
	seen := map[any]bool{}
	for n := 1; n <= clients+1; n++ {
		seen[r.do("GetSecretValue", "secretName", "n", "versionId", n)["secretData"]] = true
	}
	if len(seen) != clients+1 {
		t.Errorf("got %d different values, want %d", len(seen), clients+1)
	}
	if got := r.do("ListSecretVersionIds", "secretName", "n")["totalCount"]; got != float64(clients+1) {
		t.Errorf("got %v versions, want %d", got, clients+1)
	}
}

// TestPutsWithoutPause has clients put values of one secret one after the other,
// so that new ones come while others have met already: nobody loses for good.
func TestPutsWithoutPause(t *testing.T) {
	r := newRig(t)
	r.do("CreateSecret", "secretName", "n", "secretData", "v0")
	const clients, rounds = 50, 20
	before := r.core.calls.Load()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := range rounds {
				r.do("PutSecretValue", "secretName", "n", "secretData", fmt.Sprint("v", i))
			}
		})
	}
	wg.Wait()
	t.Logf("%d puts took %d calls of the core", clients*rounds, r.core.calls.Load()-before)
	if got := r.do("DescribeSecret", "secretName", "n"); got["secretName"] != "n" {
		t.Errorf("got %v", got)
	}
}

// TestPurgeOfEarlierProcess schedules a deletion at a time when the core's clock
// was two days behind, and lets the next process find it due.
func TestPurgeOfEarlierProcess(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"n", "kept", "restored"} {
		r.do("CreateSecret", "secretName", name, "secretData", "v1")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 8 {
				r.do("PutSecretValue", "secretName", "n", "secretData", "v")
			}
		})
	}
	wg.Wait()
	r.do("DeleteSecret", "secretName", "n", "recoveryPeriod", 1)
	r.do("DeleteSecret", "secretName", "restored", "recoveryPeriod", 1)
	r.do("RestoreSecret", "secretName", "restored")
	if n := r.due(); n != 1 {
		t.Fatalf("%d secrets are due, want 1", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.shift.Store(0)
	r.store.removed = cancel
	r.relay.Run(ctx, r.store)
	if n := r.due(); n != 0 {
		t.Errorf("after the purge %d secrets are due", n)
	}
	for _, name := range []string{"kept", "restored"} {
		if got := r.do("GetSecretValue", "secretName", name)["secretData"]; got != "v1" {
			t.Errorf("%s: got %v", name, got)
		}
	}
	if got := r.do("DescribeSecret", "secretName", "n"); len(got) != 0 {
		t.Errorf("the purged secret is %v", got)
	}
	r.do("CreateSecret", "secretName", "n", "secretData", "new")
	if got := r.do("ListSecretVersionIds", "secretName", "n")["totalCount"]; got != 1.0 {
		t.Errorf("the new secret has %v versions, want 1", got)
	}
}

// watchedStore tells of changes that remove records.
type watchedStore struct {
	*sqlite.Store
	removed func()
}

func (w *watchedStore) Apply(ctx context.Context, c store.Change) error {
	err := w.Store.Apply(ctx, c)
	if err == nil && w.removed != nil && slices.ContainsFunc(c.Writes, func(w wire.Write) bool { return w.Remove }) {
		w.removed()
	}
	return err
}
