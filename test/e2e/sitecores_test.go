package e2e

import (
	"fmt"
	"slices"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// twin makes a second core and manager of a machine, which are not started.
func (n *node) twin(t testing.TB) *target {
	g := &target{
		kind: member, dir: n.g.dir, core: "unix:" + n.path("core-2.sock"), out: newOutput(), parts: map[string]*process{}, joins: n,
		audit: n.path("audit-2"), settings: []string{"EHSM_KMS_DATABASE=" + n.site.database, "EHSM_KMS_COLLATERAL_DIR=" + n.path("collateral-2")},
	}
	t.Cleanup(func() { g.autopsy(t) })
	return g
}

// TestSiteUnderLoad has three machines with a dkeycache and two cores each, and a root
// and a worker dkeyserver. Clients work at all cores, without one failure at those
// that live, while programs are killed and started and manifests are changed. What one
// core has made the others use.
func TestSiteUnderLoad(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3, nil)
	var cores []*target
	for i, n := range s.machines {
		if i < 2 {
			n.start(t, partServer)
		}
		n.start(t, partCache)
		cores = append(cores, n.g, n.twin(t))
	}
	for _, g := range cores {
		g.start(t)
	}
	first := cores[0].enroll(t)
	key := first.createAES(t)
	sealed := sealedBy(t, first, key)
	for _, g := range cores {
		opens(t, first.on(g), key, sealed)
		made := first.on(g).createAES(t)
		opens(t, first, made, sealedBy(t, first.on(g), made))
	}
	for range rounds(1, 10) {
		s.killUnderLoad(t, first, key, cores)
		s.changeUnderLoad(t, first, key, cores)
	}
}

// killUnderLoad kills one program after the other, and starts each again.
func (s *site) killUnderLoad(t *testing.T, first *tenant, key string, cores []*target) {
	t.Helper()
	one, two, three := s.machines[0], s.machines[1], s.machines[2]
	l := work(t, first, key, at(cores)...)
	one.parts[partServer].kill()
	two.parts[partServer].kill()
	three.parts[partCache].kill()
	two.start(t, partServer)  // the worker has the DomainKey without the root
	three.start(t, partCache) // from the worker
	two.parts[partCache].kill()
	one.start(t, partServer)
	two.start(t, partCache)
	l.flawless(t)

	// Cores that are killed serve nobody, the others everybody.
	killed := []*target{cores[1], cores[4]}
	l = work(t, first, key, at(slices.DeleteFunc(slices.Clone(cores), func(g *target) bool { return slices.Contains(killed, g) }))...)
	for _, g := range killed {
		g.kill(partCore)
		if r := first.on(g).call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}); r.Code == 200 {
			t.Errorf("a core that is dead encrypts: %s", r.body)
		}
		g.start(t)
		opens(t, first.on(g), key, sealedBy(t, first, key))
	}
	l.flawless(t)
}

// changeUnderLoad puts manifests into force, which cores take over as they work.
func (s *site) changeUnderLoad(t *testing.T, first *tenant, key string, cores []*target) {
	t.Helper()
	l := work(t, first, key, at(cores)...)
	for i := range 2 {
		printed := make([]int, len(s.machines))
		for m, n := range s.machines {
			printed[m] = n.g.out.size()
		}
		s.change(t, s.machines[i%2], func(m *manifest.Settings) { m.RequestWindow = 120 + i })
		for _, g := range cores {
			g.joins.said(t, printed[slices.Index(s.machines, g.joins)], fmt.Sprintf("under manifest %d on %s\n", s.last.Version, g.core))
		}
	}
	l.flawless(t)
}

// at has a load work at cores of machines that have several.
func at(cores []*target) []*node {
	all := make([]*node, len(cores))
	for i, g := range cores {
		all[i] = &node{g: g}
	}
	return all
}
