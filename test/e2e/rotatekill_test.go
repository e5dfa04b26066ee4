package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// TestRotationKilled kills programs at each step of a rotation. The next start
// continues: everybody gets the version, it is the same one for all, and what was
// encrypted before opens.
func TestRotationKilled(t *testing.T) {
	t.Parallel()
	s := newSiteOf(t, failingPrograms(t), 2, nil)
	s.up(t)
	one, two := s.machines[0], s.machines[1]
	first := one.g.enroll(t)
	key := first.createAES(t)
	sealed := sealedBy(t, first, key)
	steps := []struct {
		at            *node
		victim, point string
	}{
		{one, partServer, "rotate.sealed root"},
		{one, partServer, "rotate.made root"},
		{two, partCache, "provision.opened dkeycache"},
		{two, partCore, "provision.filled core"},
		{one, partServer, "rotate.filled root"},
		{one, partServer, "replace.write domainkey.sealed"},
		{one, partServer, "replace.rename domainkey.sealed"},
		{one, partServer, "replace.renamed domainkey.sealed"},
		{two, partServer, "provision.opened dkeyserver"},
		{two, partServer, "provision.filled dkeyserver"},
		{two, partServer, "replace.write domainkey.sealed"},
		{two, partServer, "replace.renamed domainkey.sealed"},
		{two, partCache, "provision.filled dkeycache"},
		{two, partCore, "provision.opened core"},
	}
	for _, row := range steps[:rounds(4, len(steps))] {
		t.Run(row.point, func(t *testing.T) {
			printed := two.g.out.size()
			row.at.fails(t, row.point, "kill")
			s.change(t, one, func(m *manifest.Settings) { m.DomainKey.Version = m.DomainKeyVersion() + 1 })
			row.at.dies(t, row.victim)
			row.at.mends(t)
			row.at.revive(t, row.victim)
			version := s.last.Settings.DomainKeyVersion()
			if row.victim != partServer || row.at == one {
				two.said(t, printed, fmt.Sprintf(`has the DomainKey" versions=%d`, version))
			}
			for _, n := range s.machines {
				if err := n.g.awaitReady(); err != nil {
					t.Fatal(err)
				}
				opens(t, first.on(n.g), key, sealed)
			}
		})
	}
	for range rounds(0, 1) { // it takes a quarter of a minute
		s.rewrapped(t, s.last.Settings.DomainKeyVersion())
		if count := s.wrapped(t); count[s.last.Settings.DomainKeyVersion()] == 0 || len(count) != 1 {
			t.Errorf("records by version: got %v", count)
		}
	}
	// Everybody has the same: cores that have just started use it at once, and what one
	// machine makes the other opens.
	for _, n := range s.machines {
		n.g.kill()
		n.parts[partCache].kill()
		n.parts[partServer].kill()
	}
	s.up(t)
	made := first.createAES(t)
	opens(t, first.on(two.g), made, sealedBy(t, first, made))
	opens(t, first.on(two.g), key, sealed)
	if count := s.wrapped(t); count[s.last.Settings.DomainKeyVersion()] == 0 {
		t.Errorf("records by version: got %v", count)
	}
}

// TestRootBehind puts a root back to before a rotation. It makes no second key of
// that number, and nobody takes what it has for the whole.
func TestRootBehind(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, nil)
	s.up(t)
	one, two := s.machines[0], s.machines[1]
	first := one.g.enroll(t)
	key := first.createAES(t)
	sealed := sealedBy(t, first, key)
	backup := map[string][]byte{}
	for _, name := range []string{manifest.GenesisFile, "domainkey.sealed"} {
		b, err := os.ReadFile(filepath.Join(one.path("domain"), name))
		if err != nil {
			t.Fatal(err)
		}
		backup[name] = b
	}
	printed := two.g.out.size()
	s.rotate(t, one)
	two.said(t, printed, `has the DomainKey" versions=2`)
	one.parts[partServer].kill()
	if err := errors.Join(os.RemoveAll(one.path("domain")), os.Mkdir(one.path("domain"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for name, b := range backup {
		if err := os.WriteFile(filepath.Join(one.path("domain"), name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	printed = one.g.out.size()
	one.start(t, partServer)
	one.said(t, printed, `others have a version of the DomainKey that this root has not`)
	for _, n := range s.machines {
		opens(t, first.on(n.g), key, sealed)
	}
}
