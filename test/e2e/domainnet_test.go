package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// A network connects the machines of a site, and can be broken.
type network interface {
	// join connects the machines. It is called before anything starts.
	join(t *testing.T, s *site)
	// cut parts a machine from all others, and mend ends that.
	cut(t *testing.T, n *node)
	mend(t *testing.T, n *node)
	// disturb has everything arrive late or not at all, if on.
	disturb(t *testing.T, on bool)
}

// proxies are a network of links, one for each direction.
type proxies struct {
	links map[[2]*node]*link // from a machine to a dkeyserver
}

func (p *proxies) join(t *testing.T, s *site) {
	p.links = map[[2]*node]*link{}
	for _, n := range s.machines {
		n.via = map[*node]string{}
		for _, to := range s.machines {
			if to != n && !to.bare {
				l := newLink(t, to.server)
				n.via[to], p.links[[2]*node{n, to}] = l.addr(), l
			}
		}
	}
}

func (p *proxies) of(n *node, f func(*link)) {
	for ends, l := range p.links {
		if n == nil || slices.Contains(ends[:], n) {
			f(l)
		}
	}
}

func (p *proxies) cut(_ *testing.T, n *node)  { p.of(n, (*link).cut) }
func (p *proxies) mend(_ *testing.T, n *node) { p.of(n, (*link).mend) }

func (p *proxies) disturb(_ *testing.T, on bool) {
	delay := time.Duration(0)
	if on {
		delay = 80 * time.Millisecond
	}
	p.of(nil, func(l *link) { l.slow(delay) })
}

// namespaces are a network of the kernel's: each machine has a network namespace
// with a cable to a router, which has one too.
type namespaces struct {
	prefix string
	cables map[*node]string // name of the router's end
}

// ip runs ip(8) in a namespace.
func (x *namespaces) ip(t *testing.T, namespace string, args ...string) {
	t.Helper()
	x.run(t, append([]string{"ip", "-n", namespace}, args...)...)
}

func (x *namespaces) run(t *testing.T, command ...string) {
	t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}

func (x *namespaces) make(t *testing.T, namespace string) {
	t.Helper()
	x.run(t, "ip", "netns", "add", namespace)
	t.Cleanup(func() { x.run(t, "ip", "netns", "del", namespace) })
	x.ip(t, namespace, "link", "set", "lo", "up")
}

func (x *namespaces) join(t *testing.T, s *site) {
	x.prefix, x.cables = fmt.Sprint("ehsm", os.Getpid()), map[*node]string{}
	hub := x.prefix + "-hub"
	x.make(t, hub)
	x.run(t, "ip", "netns", "exec", hub, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward") // bridges are not in every kernel
	for i, n := range s.machines {
		name, port := fmt.Sprint(x.prefix, "-", i), fmt.Sprint("port", i)
		x.make(t, name)
		x.ip(t, hub, "link", "add", port, "type", "veth", "peer", "name", "eth", "netns", name)
		x.ip(t, hub, "address", "add", fmt.Sprintf("10.211.%d.1/24", i), "dev", port)
		x.ip(t, hub, "link", "set", port, "up")
		x.ip(t, name, "address", "add", fmt.Sprintf("10.211.%d.2/24", i), "dev", "eth")
		x.ip(t, name, "link", "set", "eth", "up")
		x.ip(t, name, "route", "add", "default", "via", fmt.Sprintf("10.211.%d.1", i))
		n.inside, n.server, x.cables[n] = []string{"ip", "netns", "exec", name}, fmt.Sprintf("10.211.%d.2:8888", i), port
	}
}

func (x *namespaces) cut(t *testing.T, n *node) {
	x.ip(t, x.prefix+"-hub", "link", "set", x.cables[n], "down")
}

func (x *namespaces) mend(t *testing.T, n *node) {
	x.ip(t, x.prefix+"-hub", "link", "set", x.cables[n], "up")
}

// disturb loses every tenth packet on its way in.
func (x *namespaces) disturb(t *testing.T, on bool) {
	for n := range x.cables {
		nft := append(slices.Clone(n.inside), "nft")
		if !on {
			x.run(t, append(nft, "flush", "ruleset")...)
			continue
		}
		x.run(t, append(nft, "add table inet lossy; add chain inet lossy in { type filter hook input priority 0; }; add rule inet lossy in numgen random mod 10 < 1 drop")...)
	}
}

// TestDomainNetwork parts the machines of a domain from each other while clients
// work at all nodes.
func TestDomainNetwork(t *testing.T) {
	t.Parallel()
	t.Run("proxies", func(t *testing.T) {
		t.Parallel()
		testDomainNetwork(t, &proxies{})
	})
	if os.Getenv("EHSM_NETNS") != "" { // scripts/long.sh says if it is not run
		t.Run("namespaces", func(t *testing.T) {
			t.Parallel()
			testDomainNetwork(t, &namespaces{})
		})
	}
}

// second adds another core and manager to a machine.
func (n *node) second(t *testing.T) *target {
	t.Helper()
	g := &target{
		kind: member, dir: n.site.home.dir, core: "unix:" + n.path("core-2.sock"), out: n.g.out, parts: map[string]*process{}, joins: n, audit: n.path("audit-2"),
		settings: []string{"EHSM_KMS_DATABASE=" + n.site.database, "EHSM_KMS_COLLATERAL_DIR=" + n.path("collateral-2")},
	}
	t.Cleanup(func() { g.autopsy(t) })
	g.start(t)
	return g
}

func testDomainNetwork(t *testing.T, w network) {
	s := newSite(t, 5, nil)
	root, worker, nodes := s.machines[0], s.machines[1], s.machines[2:]
	for _, n := range nodes {
		n.bare = true
	}
	w.join(t, s)
	root.start(t, partServer)
	worker.start(t, partServer)
	worker.said(t, 0, `has the DomainKey`)
	var at []*node // two for each node
	for _, n := range nodes {
		n.start(t, partCache)
		n.g.start(t)
		at = append(at, n, &node{g: n.second(t)})
	}
	first := nodes[0].g.enroll(t)
	key := first.createAES(t)
	sealed := sealedBy(t, first, key)
	for _, n := range at {
		opens(t, first.on(n.g), key, sealed)
	}
	running := work(t, first, key, at...)
	// fetches has a dkeycache that has just started find what it needs.
	fetches := func(what string, n *node) {
		t.Helper()
		from := time.Now()
		printed := n.g.out.size()
		n.restartsCache(t)
		n.said(t, printed, `has the DomainKey`)
		t.Logf("%s: a dkeycache has the DomainKey after %v", what, time.Since(from))
	}
	printed := nodes[2].g.out.size()
	w.cut(t, root)
	fetches("without the root", nodes[0])
	nodes[2].said(t, printed, `server not usable`)
	w.mend(t, root)
	w.cut(t, worker)
	fetches("without the worker", nodes[1])
	w.mend(t, worker)

	printed = nodes[2].g.out.size()
	w.cut(t, nodes[2])
	nodes[2].said(t, printed, `server not usable`)
	opens(t, first.on(nodes[2].g), key, sealed) // by its lease
	w.mend(t, nodes[2])
	nodes[2].said(t, printed, `joined server`)

	w.disturb(t, true)
	for _, n := range nodes {
		fetches("with losses and delays", n)
	}
	w.disturb(t, false)
	running.flawless(t)

	// What the operators sign while the root is away reaches it, and all.
	w.cut(t, root)
	s.change(t, worker, func(m *manifest.Settings) { m.RequestWindow = 120 })
	for _, n := range nodes {
		n.said(t, 0, `ehsm-core: serves domain [0-9a-f]+ under manifest 2`)
	}
	w.mend(t, root)
	root.said(t, 0, `manifests are written.*version=2`)
	if _, err := os.Stat(filepath.Join(root.path("domain"), manifest.FileName(2))); err != nil {
		t.Errorf("the root does not keep the manifest: %v", err)
	}
	for _, n := range at {
		if err := n.g.awaitReady(); err != nil {
			t.Fatal(err)
		}
		opens(t, first.on(n.g), key, sealed)
	}
}
