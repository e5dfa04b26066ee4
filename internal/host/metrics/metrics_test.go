package metrics

import (
	"bufio"
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/host/auditsink"
	"github.com/ehsm-kms/ehsm/internal/host/relay"
	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// sources tell a different number for every field.
func sources() Sources {
	return Sources{
		Version: "1.2.3",
		Store: func() store.Stats {
			return store.Stats{Stored: 11, Conflicts: 12, Replayed: 13, Failed: 14, Repeated: 15, Batches: 16,
				Waiting: 17, Connections: 18, Busy: 19, FileBytes: 20, LogBytes: 21}
		},
		Audit: func() auditsink.Stats {
			return auditsink.Stats{Entries: 31, Bytes: 32, Flushes: 33, Gaps: 34, Buffered: 35, Failed: true, Lag: 36 * time.Second}
		},
		Relay: func() relay.Stats {
			return relay.Stats{Inside: 41, Limit: 42, Remembered: 43, Read: 44, Rows: 45, Lag: 46 * time.Second, Stale: true,
				DomainKey: 47, Rewrapped: 48, Rotation: rotation(), Facts: wire.FactsState{Count: 71, Known: 72, Records: 73, Limit: 74}}
		},
		Meter: meter{stats: wire.Stats{Answered: 51, Replayed: 52, Unauthenticated: 53, Internal: 54, Replays: 55, Seen: 56,
			Apps: 57, Keys: 58, Versions: 59, Secrets: 60, Values: 61, Pending: 62, HeapBytes: 63}},
		Core: func() (wire.Info, bool) {
			return wire.Info{Platform: "sim", Simulated: true, Domain: [32]byte{0xd0}, Instance: wire.UUID{0x15}}, true
		},
	}
}

func rotation() store.Rotation {
	r := store.Rotation{Floor: 49}
	for i := range r.Slices {
		r.Slices[i] = store.Slice{Done: uint32(20 - i), Version: 49, Total: 100, Looked: 10, Refused: 1,
			Left: store.Left{Compromised: 45, Counted: 91000, Keys: 5, Secrets: 6, APIKeys: 7, Tenants: 8}}
	}
	return r
}

type meter struct {
	stats wire.Stats
	err   error
}

func (m meter) Stats(context.Context) (wire.Stats, error) { return m.stats, m.err }

func TestCoreDoesNotAnswer(t *testing.T) {
	s := sources()
	s.Meter = meter{err: errors.New("gone")}
	if got := scrape(t, New(s)); got["ehsm_core_up"] != "0" || got["ehsm_core_keys"] != "0" {
		t.Errorf("got up %s, keys %s", got["ehsm_core_up"], got["ehsm_core_keys"])
	}
}

func scrape(t *testing.T, m *Metrics) map[string]string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	values := map[string]string{}
	for s := bufio.NewScanner(w.Body); s.Scan(); {
		if line := s.Text(); !strings.HasPrefix(line, "#") {
			i := strings.LastIndexByte(line, ' ')
			values[line[:i]] = line[i+1:]
		}
	}
	return values
}

func TestReadings(t *testing.T) {
	got := scrape(t, New(sources()))
	for name, want := range map[string]string{
		`ehsm_info{domain="d000000000000000000000000000000000000000000000000000000000000000",instance="15000000-0000-0000-0000-000000000000",platform="sim",simulated="true",version="1.2.3"}`: "1",

		"ehsm_core_answered_total": "51", "ehsm_core_replayed_total": "52", "ehsm_core_unauthenticated_total": "53",
		"ehsm_core_internal_total": "54", "ehsm_core_replays": "55", "ehsm_core_seen": "56", "ehsm_core_apps": "57",
		"ehsm_core_keys": "58", "ehsm_core_key_versions": "59", "ehsm_core_secrets": "60", "ehsm_core_secret_versions": "61",
		"ehsm_core_pending": "62", "ehsm_core_heap_bytes": "63",
		"ehsm_core_up": "1", "ehsm_requests_inside": "41", "ehsm_requests_inside_limit": "42",
		"ehsm_row_cache_hits_total": "43", "ehsm_row_cache_misses_total": "44", "ehsm_row_cache_rows": "45",
		"ehsm_consistency_lag_seconds": "46", "ehsm_consistency_stale": "1",
		"ehsm_facts_entries": "71", "ehsm_facts_known": "72", "ehsm_facts_records": "73", "ehsm_facts_records_limit": "74",
		"ehsm_domainkey_version": "47", "ehsm_domainkey_floor": "49", "ehsm_rewrap_done": "5", "ehsm_rewrap_records": "1600",
		"ehsm_rewrap_looked": "160", "ehsm_rewrap_refused": "16", "ehsm_rewrapped_total": "48",
		"ehsm_exposed_version": "45", "ehsm_exposed_keys": "80", "ehsm_exposed_secrets": "96", "ehsm_exposed_api_keys": "112",
		"ehsm_exposed_tenants": "128", "ehsm_exposed_counted_seconds": "91",
		"ehsm_store_stored_total": "11", "ehsm_store_conflicts_total": "12", "ehsm_store_replayed_total": "13",
		"ehsm_store_failed_total": "14", "ehsm_store_repeated_total": "15", "ehsm_store_batches_total": "16",
		"ehsm_store_waiting": "17", "ehsm_store_connections": "18", "ehsm_store_connections_busy": "19", "ehsm_store_bytes": "20",
		"ehsm_audit_entries_total": "31", "ehsm_audit_bytes_total": "32", "ehsm_audit_flushes_total": "33",
		"ehsm_audit_gaps_total": "34", "ehsm_audit_buffered_bytes": "35", "ehsm_audit_failed": "1", "ehsm_audit_lag_seconds": "36",
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %s", name, got[name], want)
		}
	}
	for _, name := range []string{"go_goroutines", "process_cpu_seconds_total"} {
		if got[name] == "" {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestRequests(t *testing.T) {
	m := New(sources())
	m.Observe("Encrypt", 200, 3*time.Millisecond)
	m.Observe("Encrypt", 200, 3*time.Millisecond)
	m.Observe("Encrypt", 400, time.Millisecond)
	m.Observe("Decrypt", 429, 0)
	m.Observe("Decrypt", 500, 0)
	m.Observe("Decrypt", 0, 0)
	m.Observe("a name\"that} a client chose", 404, 0)
	got := scrape(t, m)
	for name, want := range map[string]string{
		`ehsm_requests_total{action="Encrypt",outcome="ok"}`:        "2",
		`ehsm_requests_total{action="Encrypt",outcome="refused"}`:   "1",
		`ehsm_requests_total{action="Decrypt",outcome="busy"}`:      "1",
		`ehsm_requests_total{action="Decrypt",outcome="failed"}`:    "2",
		`ehsm_requests_total{action="other",outcome="refused"}`:     "1",
		`ehsm_request_seconds_bucket{action="Encrypt",le="0.001"}`:  "1",
		`ehsm_request_seconds_bucket{action="Encrypt",le="0.0025"}`: "1",
		`ehsm_request_seconds_bucket{action="Encrypt",le="0.005"}`:  "3",
		`ehsm_request_seconds_count{action="Encrypt"}`:              "3",
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %s", name, got[name], want)
		}
	}
	for name := range got {
		if strings.Contains(name, "chose") {
			t.Errorf("a client's text is a label: %s", name)
		}
	}
	for _, a := range api.Actions() {
		if got[`ehsm_requests_total{action="`+a+`",outcome="ok"}`] == "" {
			t.Errorf("%s is counted only once it has happened", a)
		}
	}
}

// TestTable compares what is served with the table, and the table with the
// documentation.
func TestTable(t *testing.T) {
	name := regexp.MustCompile(`^(ehsm_\w+?)(_bucket|_sum|_count)?(\{|$)`)
	var served, declared []string
	for line := range scrape(t, New(sources())) {
		if m := name.FindStringSubmatch(line); m != nil && !slices.Contains(served, m[1]) {
			served = append(served, m[1])
		}
	}
	for _, m := range Table() {
		declared = append(declared, m.Name)
		if m.Help == "" || m.Kind == counter != strings.HasSuffix(m.Name, "_total") {
			t.Errorf("%s: kind %s, help %q", m.Name, m.Kind, m.Help)
		}
	}
	slices.Sort(served)
	slices.Sort(declared)
	if !slices.Equal(served, declared) {
		t.Errorf("served %q, declared %q", served, declared)
	}
	text, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	if strings.Contains(page, Markdown()) {
		return
	}
	if os.Getenv("UPDATE_DOCS") == "" {
		t.Fatal("docs/metrics.md differs from the table; UPDATE_DOCS=1 go test ./internal/host/metrics writes it")
	}
	from, to := strings.Index(page, "| metric |"), strings.Index(page, "\nThose of the Go run-time")
	if from < 0 || to < from {
		t.Fatal("docs/metrics.md has no place for the table")
	}
	if err := os.WriteFile("../../../docs/metrics.md", []byte(page[:from]+Markdown()+page[to:]), 0o644); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkObserve(b *testing.B) {
	m := New(sources())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Observe("Encrypt", 200, 300*time.Microsecond)
		}
	})
}
