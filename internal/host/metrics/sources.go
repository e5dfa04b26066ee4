package metrics

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ehsm-kms/ehsm/internal/host/auditsink"
	"github.com/ehsm-kms/ehsm/internal/host/relay"
	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Sources tell the state of the parts of a manager at this moment.
type Sources struct {
	Version string
	Store   func() store.Stats
	Audit   func() auditsink.Stats
	Relay   func() relay.Stats
	// Core describes the core that serves now; false: none.
	Core func() (wire.Info, bool)
	// Meter tells what that core does.
	Meter wire.Meter
}

// A state is what all sources told at one moment.
type state struct {
	version string
	store   store.Stats
	audit   auditsink.Stats
	relay   relay.Stats
	core    wire.Info
	there   bool
	meter   wire.Stats
}

// A reading is a metric that is read from the state.
type reading struct {
	Metric
	read   func(*state) float64
	labels func(*state) []string // nil: none
}

const (
	counter = "counter"
	gauge   = "gauge"
)

// readings is the table of everything but requests.
func readings() []reading {
	one := func(name, kind, help string, read func(*state) float64) reading {
		return reading{Metric: Metric{Name: name, Kind: kind, Help: help}, read: read}
	}
	return []reading{
		{Metric{"ehsm_info", gauge, []string{"version", "platform", "simulated", "domain", "instance"},
			"Always 1. What serves: with simulated=\"true\" no hardware protects the keys."},
			func(*state) float64 { return 1 },
			func(s *state) []string {
				return []string{s.version, s.core.Platform, text(s.core.Simulated), hex.EncodeToString(s.core.Domain[:]), s.core.Instance.String()}
			}},
		one("ehsm_core_up", gauge, "1: a core is connected.", func(s *state) float64 { return flag(s.there) }),
		one("ehsm_core_answered_total", counter, "Requests that the core has answered, refused ones included.", func(s *state) float64 { return float64(s.meter.Answered) }),
		one("ehsm_core_replayed_total", counter, "Of these, refused because they had been used at this core before.", func(s *state) float64 { return float64(s.meter.Replayed) }),
		one("ehsm_core_unauthenticated_total", counter, "Of these, refused because the signature was wrong.", func(s *state) float64 { return float64(s.meter.Unauthenticated) }),
		one("ehsm_core_limited_total", counter, "Of these, refused because their app was over a limit of the manifest: of requests, keys or secrets.", func(s *state) float64 { return float64(s.meter.Limited) }),
		one("ehsm_core_internal_total", counter, "Of these, answered with code 500.", func(s *state) float64 { return float64(s.meter.Internal) }),
		one("ehsm_core_replays", gauge, "Requests that the core remembers, to refuse them a second time.", func(s *state) float64 { return float64(s.meter.Replays) }),
		one("ehsm_core_seen", gauge, "Changed records whose newest revision the core remembers, to refuse older ones.", func(s *state) float64 { return float64(s.meter.Seen) }),
		one("ehsm_core_apps", gauge, "Tenants opened in the core's memory.", func(s *state) float64 { return float64(s.meter.Apps) }),
		one("ehsm_core_keys", gauge, "Keys opened there.", func(s *state) float64 { return float64(s.meter.Keys) }),
		one("ehsm_core_key_versions", gauge, "Key versions opened there.", func(s *state) float64 { return float64(s.meter.Versions) }),
		one("ehsm_core_secrets", gauge, "Secrets opened there.", func(s *state) float64 { return float64(s.meter.Secrets) }),
		one("ehsm_core_secret_versions", gauge, "Versions of secrets there, encrypted.", func(s *state) float64 { return float64(s.meter.Values) }),
		one("ehsm_core_pending", gauge, "Changes that the core holds back until they are stored.", func(s *state) float64 { return float64(s.meter.Pending) }),
		one("ehsm_core_heap_bytes", gauge, "Memory that the core uses for data.", func(s *state) float64 { return float64(s.meter.HeapBytes) }),
		one("ehsm_requests_inside", gauge, "Requests being served now.", func(s *state) float64 { return float64(s.relay.Inside) }),
		one("ehsm_requests_waiting", gauge, "Of these, those that wait for the turn of their tenant at the core.", func(s *state) float64 { return float64(s.relay.Waiting) }),
		one("ehsm_requests_waited_total", counter, "Times that a request had to wait for that.", func(s *state) float64 { return float64(s.relay.Waited) }),
		one("ehsm_requests_crowded_total", counter, "Requests answered with code 429 because too many of their tenant were waiting.", func(s *state) float64 { return float64(s.relay.Crowded) }),
		one("ehsm_requests_inside_limit", gauge, "How many may be served at a time; further ones are busy.", func(s *state) float64 { return float64(s.relay.Limit) }),
		one("ehsm_row_cache_hits_total", counter, "Requests whose rows were all remembered.", func(s *state) float64 { return float64(s.relay.Remembered) }),
		one("ehsm_row_cache_misses_total", counter, "Times that rows were read from the store for a request.", func(s *state) float64 { return float64(s.relay.Read) }),
		one("ehsm_row_cache_rows", gauge, "Rows remembered.", func(s *state) float64 { return float64(s.relay.Rows) }),
		one("ehsm_consistency_lag_seconds", gauge, "Time since the changes of other nodes were last known; 0 with a store of one node.", func(s *state) float64 { return s.relay.Lag.Seconds() }),
		one("ehsm_consistency_stale", gauge, "1: it is over the grace, so remembered rows do not count.", func(s *state) float64 { return flag(s.relay.Stale) }),
		one("ehsm_facts_entries", gauge, "Entries of the log of negative facts that the core has verified.", func(s *state) float64 { return float64(s.relay.Facts.Count) }),
		one("ehsm_facts_known", gauge, "Entries that it knows to exist. If there are more, it serves nothing.", func(s *state) float64 { return float64(s.relay.Facts.Known) }),
		one("ehsm_facts_records", gauge, "Records that the entries are about, which the core remembers.", func(s *state) float64 { return float64(s.relay.Facts.Records) }),
		one("ehsm_facts_records_limit", gauge, "How many it may remember; when there are more, nothing can be disabled or deleted.", func(s *state) float64 { return float64(s.relay.Facts.Limit) }),
		one("ehsm_domainkey_version", gauge, "Version of the DomainKey that the core wraps new records under.", func(s *state) float64 { return float64(s.relay.DomainKey) }),
		one("ehsm_domainkey_floor", gauge, "Least version under which the store takes records; 0: any.", func(s *state) float64 { return float64(s.relay.Rotation.Floor) }),
		one("ehsm_rewrap_done", gauge, "Version of the DomainKey below which no record is left, but for refused ones.", func(s *state) float64 { return float64(s.relay.Rotation.Done()) }),
		one("ehsm_rewrap_records", gauge, "Records in the store, when the last or present wrapping anew began.", func(s *state) float64 { return float64(s.relay.Rotation.Total()) }),
		one("ehsm_rewrap_looked", gauge, "Of these, how many were looked at.", func(s *state) float64 { return float64(s.relay.Rotation.Looked()) }),
		one("ehsm_rewrap_refused", gauge, "Of these, how many the core did not wrap anew: deleted ones, and what is no record of this domain.", func(s *state) float64 { return float64(s.relay.Rotation.Refused()) }),
		one("ehsm_exposed_version", gauge, "Version of the DomainKey that has leaked and for which the numbers of what is exposed are; 0: none, or not counted yet.", func(s *state) float64 { return float64(s.relay.Rotation.Left().Compromised) }),
		one("ehsm_exposed_keys", gauge, "Keys in use that were made under that version or an earlier one, and are to be replaced.", func(s *state) float64 { return float64(s.relay.Rotation.Left().Keys) }),
		one("ehsm_exposed_secrets", gauge, "Secrets whose newest value was stored then.", func(s *state) float64 { return float64(s.relay.Rotation.Left().Secrets) }),
		one("ehsm_exposed_api_keys", gauge, "API keys that were made then.", func(s *state) float64 { return float64(s.relay.Rotation.Left().APIKeys) }),
		one("ehsm_exposed_tenants", gauge, "Tenants that have any of these.", func(s *state) float64 { return float64(s.relay.Rotation.Left().Tenants) }),
		one("ehsm_exposed_counted_seconds", gauge, "When they were counted, in seconds since 1970.", func(s *state) float64 { return float64(s.relay.Rotation.Left().Counted) / 1000 }),
		one("ehsm_rewrapped_total", counter, "Records that this node had wrapped under another version of the DomainKey.", func(s *state) float64 { return float64(s.relay.Rewrapped) }),
		one("ehsm_store_stored_total", counter, "Changes stored.", func(s *state) float64 { return float64(s.store.Stored) }),
		one("ehsm_store_conflicts_total", counter, "Changes that met others and were repeated by the manager.", func(s *state) float64 { return float64(s.store.Conflicts) }),
		one("ehsm_store_replayed_total", counter, "Changes refused because the request had been used before, here or on another node.", func(s *state) float64 { return float64(s.store.Replayed) }),
		one("ehsm_store_failed_total", counter, "Calls that ended in an error of the database, the disk or the network.", func(s *state) float64 { return float64(s.store.Failed) }),
		one("ehsm_store_repeated_total", counter, "Changes that PostgreSQL gave up in favour of others and that were tried again.", func(s *state) float64 { return float64(s.store.Repeated) }),
		one("ehsm_store_settled_total", counter, "Times that a change was tried again after an error of PostgreSQL or of the connection to it.", func(s *state) float64 { return float64(s.store.Settled) }),
		one("ehsm_store_batches_total", counter, "Transactions of SQLite, each synced once.", func(s *state) float64 { return float64(s.store.Batches) }),
		one("ehsm_store_waiting", gauge, "Changes that wait for SQLite's writer.", func(s *state) float64 { return float64(s.store.Waiting) }),
		one("ehsm_store_connections", gauge, "Connections to PostgreSQL.", func(s *state) float64 { return float64(s.store.Connections) }),
		one("ehsm_store_connections_busy", gauge, "Connections to PostgreSQL in use.", func(s *state) float64 { return float64(s.store.Busy) }),
		one("ehsm_store_bytes", gauge, "Size of the SQLite file.", func(s *state) float64 { return float64(s.store.FileBytes) }),
		one("ehsm_audit_entries_total", counter, "Audit entries taken.", func(s *state) float64 { return float64(s.audit.Entries) }),
		one("ehsm_audit_bytes_total", counter, "Bytes of the audit trail written to disk.", func(s *state) float64 { return float64(s.audit.Bytes) }),
		one("ehsm_audit_flushes_total", counter, "Writes of the audit trail, each synced.", func(s *state) float64 { return float64(s.audit.Flushes) }),
		one("ehsm_audit_buffered_bytes", gauge, "Bytes of the audit trail that are not on disk yet.", func(s *state) float64 { return float64(s.audit.Buffered) }),
		one("ehsm_audit_lag_seconds", gauge, "Age of the oldest audit entry that is not on disk yet.", func(s *state) float64 { return s.audit.Lag.Seconds() }),
		one("ehsm_audit_gaps_total", counter, "Times that entries were written although one before them was missing.", func(s *state) float64 { return float64(s.audit.Gaps) }),
		one("ehsm_audit_failed", gauge, "1: the audit trail cannot be written, so requests are refused.", func(s *state) float64 { return flag(s.audit.Failed) }),
	}
}

// meterTimeout is how long a scrape waits for the core.
const meterTimeout = 2 * time.Second

// A collector reads all sources once for each scrape.
type collector struct {
	sources  Sources
	readings []reading
	descs    []*prometheus.Desc
}

func newCollector(s Sources) *collector {
	c := &collector{sources: s, readings: readings()}
	for _, r := range c.readings {
		c.descs = append(c.descs, prometheus.NewDesc(r.Name, r.Help, r.Labels, nil))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := &state{version: c.sources.Version, store: c.sources.Store(), audit: c.sources.Audit(), relay: c.sources.Relay()}
	s.core, s.there = c.sources.Core()
	ctx, cancel := context.WithTimeout(context.Background(), meterTimeout)
	defer cancel()
	var err error
	if s.meter, err = c.sources.Meter.Stats(ctx); err != nil {
		s.there = false // it does not answer
	}
	for i, r := range c.readings {
		kind, labels := prometheus.GaugeValue, []string(nil)
		if r.Kind == counter {
			kind = prometheus.CounterValue
		}
		if r.labels != nil {
			labels = r.labels(s)
		}
		ch <- prometheus.MustNewConstMetric(c.descs[i], kind, r.read(s), labels...)
	}
}
