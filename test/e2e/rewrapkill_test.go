//go:build long

package e2e

import (
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// scatter writes copies of a tenant's rows under ids of tenants that there are not:
// no genuine records, which the core refuses.
const scatter = `INSERT INTO records SELECT (lpad(to_hex(n), 2, '0') || substr(md5(n::text), 3))::uuid, r.id, r.type, r.version, r.revision, r.used, r.hidden, r.due, r.sealed
	FROM records r, generate_series(0, 255) n WHERE r.tenant = $1 AND r.type = 2`

// TestRewrapKilled kills managers and cores, again and again, while several wrap
// records anew, with a second rotation before the first is done. The nodes that live
// serve without an error, all records end under the last version, and those that
// are not genuine are refused, kept and reported. It takes three minutes, so
// that the gate does not have it: scripts/long.sh.
func TestRewrapKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3, nil)
	s.up(t)
	one, two, three := s.machines[0], s.machines[1], s.machines[2]
	first := one.g.enroll(t)
	key := first.createAES(t)
	sealed := sealedBy(t, first, key)
	db := s.connect(t)
	tag, err := db.Exec(t.Context(), scatter, first.appid)
	if err != nil {
		t.Fatal(err)
	}
	strange := int(tag.RowsAffected())

	l := work(t, first, key, one)
	var version uint32
	for i := range 10 {
		version = s.rotate(t, one)
		for deadline := time.Now().Add(readyTimeout); ; { // until work has begun
			var floor uint32
			if err := db.QueryRow(t.Context(), "SELECT floor FROM rotation").Scan(&floor); err != nil {
				t.Fatal(err)
			}
			if floor >= version || time.Now().After(deadline) {
				break
			}
			<-time.After(5 * time.Millisecond)
		}
		victim := []*node{two, three}[i%2]
		victim.g.kill()
		s.change(t, one, func(m *manifest.Settings) { m.DomainKey.Version = m.DomainKeyVersion() + 1 })
		version = s.last.Settings.DomainKeyVersion()
		[]*node{three, two}[i%2].g.parts[partCore].kill()
		victim.g.start(t)
		[]*node{three, two}[i%2].startCore(t)
	}
	s.rewrapped(t, version)
	l.flawless(t)
	for _, n := range s.machines {
		if err := n.g.awaitReady(); err != nil {
			t.Fatal(err)
		}
		opens(t, first.on(n.g), key, sealed)
	}
	count := s.wrapped(t)
	if old := count[1]; old != strange || len(count) != 2 {
		t.Errorf("records by version: got %v, want %d that are not genuine under 1, all others under %d", count, strange, version)
	}
	var refused int
	if err := db.QueryRow(t.Context(), "SELECT sum(refused) FROM rewraps").Scan(&refused); err != nil || refused != strange {
		t.Errorf("refused records: got %d, %v, want %d", refused, err, strange)
	}
	t.Logf("%d rotations; records by version: %v", version-1, count)
}
