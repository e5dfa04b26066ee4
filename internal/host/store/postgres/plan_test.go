package postgres

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
)

const (
	someTenant = "'00000000-0000-0000-0000-000000000007'"
	someID     = "'00000000-0000-0000-0000-000000000123'"
)

// loaded fills a database with 100 tenants of 200 keys, each with a version, and
// as many replay entries, changes and secrets that are due some day.
var loaded = []string{
	`INSERT INTO records SELECT lpad(to_hex(n % 100), 32, '0')::uuid, lpad(to_hex(n / 100), 32, '0')::uuid, type, type - 2, 1, 1, false,
		0, decode(md5(n::text) || md5(type::text), 'hex') FROM generate_series(1, 20000) AS n, generate_series(2, 3) AS type`,
	`INSERT INTO records SELECT lpad(to_hex(n % 100), 32, '0')::uuid, gen_random_uuid(), 5, 0, 1, 1, false,
		n, '\x00' FROM generate_series(1, 20000) AS n`,
	`INSERT INTO replays SELECT lpad(to_hex(n % 100), 32, '0')::uuid, md5(n::text)::uuid, n FROM generate_series(1, 20000) AS n`,
	`INSERT INTO facts SELECT n, '\x00' FROM generate_series(1, 20000) AS n`,
	`INSERT INTO changes SELECT n::text::xid8, gen_random_uuid(), gen_random_uuid(), 2, 0 FROM generate_series(1, 20000) AS n`,
}

// TestPlans: no statement reads a table from one end to the other, whether
// PostgreSQL plans it for the arguments or for any, before it has statistics or
// after.
func TestPlans(t *testing.T) {
	s := mustOpen(t, pgtest.Database(t), Options{})
	conn, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	key := someTenant + ", " + someID + ", 2, 0"
	statements := []struct{ name, sql, args string }{
		{"get", getRecords, "ARRAY[" + someTenant + "]::uuid[], ARRAY[" + someID + "]::uuid[], ARRAY[2], ARRAY[0]"},
		{"list", listRecords, someTenant + ", 7, " + someID + ", 500"},
		{"list keys", listNamed, someTenant + ", 2, " + someID + ", 500"},
		{"list apps", listApps, someID + ", 500"},
		{"list versions", listVersions, someTenant + ", 3, " + someID + ", 0, 500"},
		{"due", listDue, "5, 500"},
		{"update", updateRecord, key + ", 2, 1, false, 0, '\\x00', 1"},
		{"remove", removeRecord, key},
		{"remove all", removeAll, someTenant + ", " + someID + ", 3"},
		{"touch", touchRecord, key + ", 1, '\\x00'"},
		{"scan slice", scanSlice, someTenant + ", " + someID + ", 2, 0, '0fffffff-ffff-ffff-ffff-ffffffffffff', 500"},
		{"count slice", countSlice, someTenant + ", '0000000f-ffff-ffff-ffff-ffffffffffff'"},
		{"rewrap", rewrapRecords, "ARRAY[" + someTenant + "]::uuid[], ARRAY[" + someID + "]::uuid[], ARRAY[2], ARRAY[0], ARRAY[1], ARRAY['\\x00'::bytea]"},
		{"prune replays", pruneReplays, "50"},
		{"facts", listFacts, "19990, 500"},
		{"insert fact", insertFact, "20001, '\\x00', '\\x00'"},
		{"changes", listChanges, "'19990', ARRAY['7', '8']"},
		{"prune changes", deleteChanges, "'10 minutes'"},
		{"foreign changes", deleteForeignChanges, ""},
	}
	explain := func(when, mode string) {
		exec("SET plan_cache_mode = " + mode)
		for _, q := range statements {
			exec("PREPARE tried AS " + q.sql)
			call := "EXECUTE tried"
			if q.args != "" {
				call += "(" + q.args + ")"
			}
			var plan []string
			err := rows(t.Context(), conn, func(r pgx.Rows) error {
				plan = append(plan, "")
				return r.Scan(&plan[len(plan)-1])
			}, "EXPLAIN "+call)
			if err != nil {
				t.Fatalf("%s: %v", q.name, err)
			}
			if text := strings.Join(plan, "\n"); strings.Contains(text, "Seq Scan on") {
				t.Errorf("%s, %s, %s:\n%s", q.name, when, mode, text)
			}
			exec("DEALLOCATE tried")
		}
	}
	for _, when := range []string{"empty", "loaded", "analyzed"} {
		switch when {
		case "loaded":
			for _, sql := range loaded {
				exec(sql)
			}
		case "analyzed":
			exec("ANALYZE")
		}
		explain(when, "force_generic_plan")
		explain(when, "force_custom_plan")
	}
}
