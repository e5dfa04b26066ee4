package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	records "github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// rotate has the operators ask for the next version of the DomainKey.
func (s *site) rotate(t testing.TB, at *node) uint32 {
	t.Helper()
	s.change(t, at, func(m *manifest.Settings) { m.DomainKey.Version = m.DomainKeyVersion() + 1 })
	return s.last.Settings.DomainKeyVersion()
}

// rewrapped waits until the managers have wrapped all records under a version.
func (s *site) rewrapped(t testing.TB, version uint32) {
	t.Helper()
	db := s.connect(t)
	for end := time.Now().Add(readyTimeout); ; {
		var done uint32
		if err := db.QueryRow(t.Context(), "SELECT min(done) FROM rewraps").Scan(&done); err != nil {
			t.Fatal(err)
		}
		if done >= version {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("records are wrapped under version %d, want %d", done, version)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func (s *site) connect(t testing.TB) *pgx.Conn {
	t.Helper()
	db, err := pgx.Connect(t.Context(), s.database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	return db
}

// wrapped counts the records under each version of the DomainKey.
func (s *site) wrapped(t testing.TB) map[uint32]int {
	t.Helper()
	rows, err := s.connect(t).Query(t.Context(), "SELECT sealed FROM records")
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		t.Fatal(err)
	}
	count := map[uint32]int{}
	for _, b := range all {
		version, _ := records.SealedVersions(b)
		count[version]++
	}
	return count
}

// TestRotation rotates the DomainKey, twice in a row, while clients of all nodes work,
// keys are made, and several managers wrap the records anew. One node sleeps through
// it. A version that is forgotten opens nothing any more.
func TestRotation(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3, nil)
	s.up(t)
	one, two, three := s.machines[0], s.machines[1], s.machines[2]
	first := one.g.enroll(t)
	key := first.createAES(t)
	sealed := sealedBy(t, first, key)
	var tenants []*tenant
	var keys []string
	for i := range rounds(12, 60) {
		c := s.machines[i%3].g.enroll(t)
		tenants, keys = append(tenants, c), append(keys, c.createAES(t))
	}
	old := s.rows(t, first)

	three.g.kill()
	three.parts[partCache].kill()
	l := work(t, first, key, one, two)
	s.rotate(t, two) // a worker takes it to the root
	one.said(t, 0, `has the DomainKey" domain=[0-9a-f]+ versions=2`)
	version := s.rotate(t, two) // before any record is under the one before
	s.rewrapped(t, version)
	for _, c := range tenants {
		made := c.on(one.g).createAES(t)
		opens(t, c.on(two.g), made, sealedBy(t, c.on(one.g), made))
	}
	l.flawless(t)
	if count := s.wrapped(t); len(count) != 1 || count[version] == 0 {
		t.Errorf("records by version: got %v, want all under %d", count, version)
	}

	three.start(t, partCache)
	three.g.start(t)
	opens(t, first.on(three.g), key, sealed)
	for range rounds(0, 2) { // each takes a quarter of a minute
		l = work(t, first, key, one, two, three)
		version = s.rotate(t, one)
		s.rewrapped(t, version)
		l.flawless(t)
	}
	for i, c := range tenants {
		opens(t, c.on(s.machines[i%3].g), keys[i], sealedBy(t, c.on(s.machines[(i+1)%3].g), keys[i]))
	}

	// A copy of the rows from before the rotation opens as long as the version is kept.
	s.putBack(t, old)
	s.restartCores(t)
	opens(t, first, key, sealed)
	printed := one.g.out.size()
	s.change(t, one, func(m *manifest.Settings) { m.DomainKey.Forgotten = []uint32{1} })
	one.said(t, printed, `versions of the DomainKey are forgotten`)
	for _, n := range s.machines {
		n.said(t, 0, fmt.Sprintf(`serves domain [0-9a-f]+ under manifest %d`, s.last.Version))
	}
	s.restartCores(t)
	if r := first.call(t, "Decrypt", fields{"keyid": key, "ciphertext": sealed}); r.Code == 200 {
		t.Errorf("a record under a forgotten version opens: %s", r.body)
	}
}

// A stored row of a tenant.
type storedRow struct {
	id, tenant [16]byte
	kind       int16
	version    int64
	revision   int64
	sealed     []byte
}

// rows copies the records of a tenant, as a backup has them.
func (s *site) rows(t testing.TB, c *tenant) (all []storedRow) {
	t.Helper()
	rows, err := s.connect(t).Query(t.Context(), "SELECT tenant, id, type, version, revision, sealed FROM records WHERE tenant = $1", c.appid)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var r storedRow
		if err := rows.Scan(&r.tenant, &r.id, &r.kind, &r.version, &r.revision, &r.sealed); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	if len(all) == 0 {
		t.Fatal("the tenant has no rows")
	}
	return all
}

// putBack writes copies over what is stored.
func (s *site) putBack(t testing.TB, all []storedRow) {
	t.Helper()
	db := s.connect(t)
	for _, r := range all {
		tag, err := db.Exec(t.Context(), "UPDATE records SET revision = $5, sealed = $6 WHERE tenant = $1 AND id = $2 AND type = $3 AND version = $4",
			r.tenant, r.id, r.kind, r.version, r.revision, r.sealed)
		if err != nil || tag.RowsAffected() != 1 {
			t.Fatalf("put a row back: %v, %v", tag, err)
		}
	}
}

// restartCores has all nodes forget what they have opened and read.
func (s *site) restartCores(t testing.TB) {
	t.Helper()
	for _, n := range s.machines {
		n.g.kill()
		n.g.start(t)
	}
}

// TestRestoreOlderThanRotation loses a site after a rotation. The copy of its records
// is from before, the backup of the domain from after: both old and new records open.
func TestRestoreOlderThanRotation(t *testing.T) {
	t.Parallel()
	c := newCeremony(t, 2)
	one, two := c.machines[0], c.machines[1]
	for _, part := range []string{partServer, partCache} {
		one.start(t, part)
	}
	one.g.start(t)
	tenant := one.g.enroll(t)
	key := tenant.createAES(t)
	sealed := sealedBy(t, tenant, key)
	old := c.rows(t, tenant)
	share := func(name string) string { return c.of("share-" + name) }
	for _, name := range []string{"dave", "erin"} {
		if err := os.WriteFile(share(name), c.read(t, one.path("domain/share-"+name+".sealed")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	one.said(t, 0, "the escrow is written")
	version := c.rotate(t, one)
	c.rewrapped(t, version)
	late := tenant.createAES(t) // under the new version only
	lateSealed := sealedBy(t, tenant, late)
	after := c.of("after.backup")
	contains(t, c.ehsm(t, 0, "domain", "backup", "--dir", one.path("domain"), "--out", after), "versions 1, 2")

	one.g.kill()
	clear(one.g.parts)
	for _, part := range []string{partCache, partServer, partTEE} {
		one.parts[part].kill()
	}
	c.machines = c.machines[1:]
	c.putBack(t, old)
	admits := c.of("manifest-3.json")
	c.admit(t, two, admits)
	restore := func(backup string, manifests ...string) {
		p := c.restoring(t, two, append([]string{backup}, manifests...)...)
		for _, name := range []string{"dave", "erin"} {
			c.release(t, two, 0, name, share(name))
		}
		<-p.exited
		if p.err != nil {
			t.Fatalf("the restoration: %v", p.err)
		}
		for _, part := range []string{partServer, partCache} {
			two.start(t, part)
		}
		two.g.start(t)
	}
	restore(after, admits)
	opens(t, tenant.on(two.g), key, sealed)
	opens(t, tenant.on(two.g), late, lateSealed)
	opens(t, tenant.on(two.g), late, sealedBy(t, tenant.on(two.g), late))
}
