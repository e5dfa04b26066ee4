package e2e

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
)

// schema is where a database of pgtest is.
func schema(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("search_path")
}

// copyTo has another database say all that the one of the site says.
func (r *rollback) copyTo(t *testing.T, database string) {
	t.Helper()
	from, to := schema(t, r.database), schema(t, database)
	rows, err := r.db.Query(t.Context(), "SELECT tablename FROM pg_tables WHERE schemaname = $1", from)
	if err != nil {
		t.Fatal(err)
	}
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, name)
	}
	if err := rows.Err(); err != nil || len(tables) == 0 {
		t.Fatalf("tables of %s: %v, %v", from, tables, err)
	}
	for _, name := range tables {
		r.exec(t, fmt.Sprintf("CREATE TABLE %[1]s.%[3]s (LIKE %[2]s.%[3]s INCLUDING ALL)", to, from, name),
			fmt.Sprintf("INSERT INTO %[1]s.%[3]s OVERRIDING SYSTEM VALUE SELECT * FROM %[2]s.%[3]s", to, from, name))
	}
}

// useDatabase starts the manager of a machine again, at another database, and waits
// for nobody.
func (n *node) useDatabase(t *testing.T, database string) {
	t.Helper()
	n.g.kill(partKMS)
	n.g.settings = append(n.g.settings, "EHSM_KMS_DATABASE="+database)
	n.g.launch(t, partKMS)
}

// TestFactsForked has a host keep two continuations of the log of negative facts and
// show each to one node, while the nodes cannot hear of each other. When they do, the
// log that a dkeyserver has first is the one that counts: whoever was shown the other
// serves nothing until it is shown the right one, and no state of before comes back.
func TestFactsForked(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, nil)
	s.up(t)
	one, two := s.machines[0], s.machines[1]
	first := one.g.enroll(t)
	before, here, there := first.createAES(t), first.createAES(t), first.createAES(t)
	want(t, first.call(t, "DisableKey", fields{"keyid": before}), 200, textSuccessful)
	one.anchored(t, 1)
	two.anchored(t, 1)

	for _, n := range s.machines {
		n.parts[partServer].kill() // nothing passes from one machine to the other
	}
	two.g.kill(partKMS)
	r := s.rollback(t)
	other := pgtest.Database(t)
	r.copyTo(t, other)
	two.useDatabase(t, other)
	two.ready(t)
	want(t, first.call(t, "DisableKey", fields{"keyid": here}), 200, textSuccessful)
	want(t, first.on(two.g).call(t, "DisableKey", fields{"keyid": there}), 200, textSuccessful)
	want(t, first.on(two.g).call(t, "Encrypt", fields{"keyid": here, "plaintext": "AAAA"}), 200, textSuccess)

	two.parts[partCache].kill() // so that it is known whom the dkeyserver hears first
	one.start(t, partServer)
	one.anchored(t, 2)
	printed := two.g.out.size()
	two.start(t, partCache)
	two.said(t, printed, `the log of negative facts is forked`)
	two.withheld(t)
	refuses(t, first.on(two.g), "by a core that was shown another log, a key that is as it was", there)
	one.ready(t)
	refuses(t, first, "a disabled key", here)

	two.useDatabase(t, s.database)
	two.restart(t) // it would try again by itself, some seconds later
	two.ready(t)
	refuses(t, first.on(two.g), "a key disabled before the fork", before)
	refuses(t, first.on(two.g), "a key disabled in the log that counts", here)
	// As documented: what was done in the other one has not happened.
	want(t, first.on(two.g).call(t, "Encrypt", fields{"keyid": there, "plaintext": "AAAA"}), 200, textSuccess)
	two.start(t, partServer)
	two.anchored(t, 2)
}
