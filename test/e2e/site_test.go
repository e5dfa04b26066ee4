package e2e

import (
	"cmp"
	"crypto"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Parts of a domain of several nodes.
const (
	partServer = "ehsm-dkeyserver"
	partCache  = "ehsm-dkeycache"
)

// A site is a domain of several machines: a dkeyserver on each, the first of them
// the root, and a node with a dkeycache, a core and a manager.
type site struct {
	home     *target // certificates and collateral of the managers
	dir      string
	database string
	domain   string // id
	root     *sim.Processor
	operator crypto.Signer
	last     *manifest.State
	machines []*node
}

// A node is a machine of a site.
type node struct {
	site   *site
	dir    string
	bin    string           // of the signed programs
	server string           // host:port at which others reach its dkeyserver
	listen string           // host:port of its dkeyserver, if it is another
	via    map[*node]string // how it reaches the dkeyservers of others, if not directly
	bare   bool             // it has no dkeyserver
	inside []string         // command that runs the programs of its TEE; nil: none
	noSeal bool             // its TEE has no seal keys
	hsm    string           // address of the sidecar of its HSM, if it has one
	cpu    *sim.Processor
	ppid   [16]byte
	g      *target
	parts  map[string]*process
}

// reach is host:port at which the machine reaches the dkeyserver of another.
func (n *node) reach(other *node) string { return cmp.Or(n.via[other], other.server) }

// load starts a signed program.
func (n *node) load(t testing.TB, env []string, name string, args ...string) *process {
	t.Helper()
	command := append(append(slices.Clone(n.inside), n.program(name)), args...)
	return spawnFile(t, n.g.out, n.g.environ(env...), command[0], command[1:]...)
}

// program is the path of a signed program.
func (n *node) program(name string) string { return filepath.Join(n.bin, name) }

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// failpoints names the file in which programs that are built for it find what is to
// fail; others do not look.
func (n *node) failpoints() string { return "EHSM_FAILPOINTS=" + n.path("points") }

func (n *node) coreSettings(listen string) []string {
	return []string{
		"EHSM_CORE_LISTEN=" + listen, "EHSM_CORE_SIM=" + n.path("tee.sock"),
		"EHSM_CORE_DKEYCACHE=unix:" + n.path("cache.sock"), "EHSM_CORE_DOMAIN_ID=" + n.site.domain, n.failpoints(),
	}
}

// newSite makes a domain of so many machines, whose genesis edit may change, and
// starts nothing but the machines.
func newSite(t testing.TB, machines int, edit func(*manifest.Settings)) *site {
	t.Helper()
	return newSiteOf(t, bin, machines, edit)
}

// newSiteOf is newSite with the programs of the TEE from a directory.
func newSiteOf(t testing.TB, programs string, machines int, edit func(*manifest.Settings)) *site {
	t.Helper()
	s, settings := emptySite(t, programs, machines)
	if edit != nil {
		edit(&settings)
	}
	s.found(t, settings)
	return s
}

// emptySite makes machines that are in no domain yet, and settings for one.
func emptySite(t testing.TB, programs string, machines int) (*site, manifest.Settings) {
	t.Helper()
	s := &site{home: prepare(t, splitUnix), database: pgtest.Database(t)}
	var err error
	if s.dir, err = os.MkdirTemp("", "site-*"); err != nil { // short: paths of unix sockets are limited
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(s.dir) })
	signed := s.sign(t, programs, "bin", filepath.Join(s.dir, "signer.seed"))
	for i := range machines {
		s.addMachine(t, i, signed, "fleet")
	}
	settings := manifest.Defaults(manifest.Development)
	settings.AllowSim, settings.SimRoot, settings.Enrollment = true, s.root.Root().Raw, manifest.EnrollmentOpen
	signer := s.signer(t, signed)
	for product, role := range []string{manifest.RoleCore, manifest.RoleDKeyCache, manifest.RoleDKeyServer} {
		settings.Code = append(settings.Code, manifest.Code{Role: role, MRSigner: signer, Product: uint16(product + 1), MinSVN: 1})
	}
	for i, n := range s.machines {
		settings.Platforms = append(settings.Platforms, manifest.Platform{Name: fmt.Sprint("machine ", i), PPID: n.ppid})
	}
	return s, settings
}

// sign copies the programs of a TEE from a directory to a new one of the site, and
// signs them with the key in a file, which is made if it is missing.
func (s *site) sign(t testing.TB, from, name, key string) string {
	t.Helper()
	dir := filepath.Join(s.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, program := range []string{partCore, partCache, partServer} {
		path := filepath.Join(dir, program)
		copyFile(t, filepath.Join(from, program), path)
		args := []string{"sign", "--key", key, "--product", fmt.Sprint(i + 1), "--svn", "1"}
		if _, err := os.Stat(key); err != nil {
			args = append(args, "--new-key")
		}
		if out, err := exec.Command(filepath.Join(bin, partTEE), append(args, path)...).CombinedOutput(); err != nil {
			t.Fatalf("sign %s: %v\n%s", program, err, out)
		}
	}
	return dir
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// signer is the MRSIGNER of signed programs.
func (s *site) signer(t testing.TB, dir string) manifest.Hash {
	t.Helper()
	p, err := sim.MeasureFile(filepath.Join(dir, partCore))
	if err != nil {
		t.Fatal(err)
	}
	return sim.SignerID(p.Signature.Signer)
}

// addMachine makes a machine of a fleet, with its collateral, and starts it.
func (s *site) addMachine(t testing.TB, i int, bin, fleet string) *node {
	t.Helper()
	n := &node{site: s, dir: filepath.Join(s.dir, fmt.Sprint("m", i)), bin: bin, server: freeAddress(t), parts: map[string]*process{}}
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := sim.OpenProcessor(n.path("sim"), sim.Options{Fleet: filepath.Join(s.dir, fleet)})
	if err != nil {
		t.Fatal(err)
	}
	if s.root == nil {
		s.root = p
	}
	n.cpu, n.ppid = p, p.Terms(time.Now()).Platform.PPID
	n.collate(t, func(*issue.Terms) {})
	n.g = &target{
		kind: member, dir: s.home.dir, core: "unix:" + n.path("core.sock"), out: newOutput(), parts: map[string]*process{}, joins: n,
		audit: n.path("audit"), settings: []string{"EHSM_KMS_DATABASE=" + s.database, "EHSM_KMS_COLLATERAL_DIR=" + n.path("collateral")},
	}
	n.start(t, partTEE)
	t.Cleanup(func() { n.autopsy(t) })
	s.machines = append(s.machines, n)
	return n
}

// collate writes collateral about the machine, which edit may change.
func (n *node) collate(t testing.TB, edit func(*issue.Terms)) {
	t.Helper()
	terms := n.cpu.Terms(time.Now())
	edit(&terms)
	c, err := n.cpu.Issue(terms)
	if err != nil {
		t.Fatal(err)
	}
	path := n.path("collateral.bin")
	if err := os.WriteFile(path+".new", c.Append(nil), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// behind puts a link before the machine's dkeyserver.
func (n *node) behind(t testing.TB) *link {
	t.Helper()
	l := newLink(t, n.server)
	n.listen, n.server = n.server, l.addr()
	return l
}

// autopsy ends what runs, and reads what it printed.
func (n *node) autopsy(t testing.TB) {
	n.g.autopsy(t)
	for _, name := range []string{partCache, partServer, partTEE} {
		if p := n.parts[name]; p != nil && p.running() {
			if err := p.stop(); err != nil {
				t.Errorf("%s does not end in order: %v", name, err)
			}
		}
	}
	if text, _ := n.g.out.after(0); alarm.Match(text) {
		t.Errorf("a program printed: %s", alarm.Find(text))
	}
}

// found makes the domain on the first machine and signs its genesis.
func (s *site) found(t testing.TB, settings manifest.Settings) {
	t.Helper()
	draft, operator, err := manifest.ThrowAway(settings)
	if err != nil {
		t.Fatal(err)
	}
	draft.Administrator = newAdministrator(t, s.administrator(), "frank")
	n := s.machines[0]
	if n.hsm != "" {
		draft.Root = manifest.HSM
	}
	b, err := draft.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.path("draft.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(n.program(partServer), "init", "--no-recovery", n.path("draft.json"))
	cmd.Env = n.g.environ(n.serverSettings()...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ehsm-dkeyserver init: %v\n%s", err, &stderr)
	}
	s.operator, s.domain = operator, strings.TrimSpace(string(out))
	genesis := filepath.Join(n.path("domain"), manifest.GenesisFile)
	if b, err = os.ReadFile(genesis); err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	s.put(t, m, genesis)
	if s.last, err = manifest.Open(s.read(t, genesis)); err != nil || s.last.Domain.String() != s.domain {
		t.Fatalf("the genesis: %v, printed was %s", err, s.domain)
	}
}

// put signs a manifest into a file, which it replaces as a whole.
func (s *site) put(t testing.TB, m *manifest.Manifest, path string) {
	t.Helper()
	if err := m.Sign(s.operator); err != nil {
		t.Fatal(err)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func (s *site) read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// change puts a new manifest into the directory of a dkeyserver.
func (s *site) change(t testing.TB, at *node, edit func(*manifest.Settings)) {
	t.Helper()
	m, err := s.last.Follow(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	edit(&m.Statement.Settings)
	path := filepath.Join(at.path("domain"), manifest.FileName(m.Statement.Version))
	s.put(t, m, path)
	if s.last, err = s.last.Next(s.read(t, path), time.Now()); err != nil {
		t.Fatal(err)
	}
}

func (n *node) serverSettings(more ...string) []string {
	if n.hsm != "" {
		more = append([]string{"EHSM_DKEYSERVER_HSM=" + n.hsm}, more...)
	}
	return append([]string{
		"EHSM_DKEYSERVER_LISTEN=" + cmp.Or(n.listen, n.server), "EHSM_DKEYSERVER_DOMAIN=" + n.path("domain"), "EHSM_DKEYSERVER_SIM=" + n.path("tee.sock"),
		"EHSM_DKEYSERVER_COLLATERAL=" + n.path("collateral.bin"), "EHSM_DKEYSERVER_HEARTBEAT=300ms", n.failpoints(),
	}, more...)
}

// serverEnv is the environment of the machine's dkeyserver in its role.
func (n *node) serverEnv() []string {
	env := n.serverSettings()
	if n != n.site.machines[0] {
		env = append(env, "EHSM_DKEYSERVER_ROLE=worker", "EHSM_DKEYSERVER_PEERS="+n.reach(n.site.machines[0]), "EHSM_DKEYSERVER_DOMAIN_ID="+n.site.domain)
	} else if n.noSeal && len(n.site.machines) > 1 {
		env = append(env, "EHSM_DKEYSERVER_PEERS="+n.reach(n.site.machines[1]))
	}
	return env
}

var (
	servesRole = regexp.MustCompile(`ehsm-dkeyserver: serves as`)
	cacheServe = regexp.MustCompile(`ehsm-dkeycache: serves domain`)
)

// start starts a part and does not wait for others.
func (n *node) start(t testing.TB, name string) {
	t.Helper()
	printed := n.g.out.size()
	ready := servesMachine
	switch name {
	case partTEE:
		args := []string{"serve", "--dir", n.path("sim"), "--fleet", filepath.Join(n.site.dir, "fleet"), "--socket", n.path("tee.sock")}
		if n.noSeal {
			args = append(args, "--no-seal-key")
		}
		n.parts[name] = spawn(t, n.g.out, n.g.environ(), name, args...)
	case partServer:
		n.parts[name], ready = n.load(t, n.serverEnv(), name, "serve"), servesRole
	case partCache:
		n.parts[name], ready = n.load(t, n.cacheSettings(), name), cacheServe
	}
	if _, err := n.parts[name].await(printed, ready); err != nil {
		text, _ := n.g.out.after(0)
		t.Fatalf("%v\n%s", err, text)
	}
}

// cacheSettings name all dkeyservers, the machine's own first.
func (n *node) cacheSettings() []string {
	var servers []string
	for _, other := range append([]*node{n}, n.site.machines...) {
		if !other.bare && !slices.Contains(servers, n.reach(other)) {
			servers = append(servers, n.reach(other))
		}
	}
	return []string{
		"EHSM_DKEYCACHE_LISTEN=unix:" + n.path("cache.sock"), "EHSM_DKEYCACHE_SERVERS=" + strings.Join(servers, ","),
		"EHSM_DKEYCACHE_DOMAIN_ID=" + n.site.domain, "EHSM_DKEYCACHE_SIM=" + n.path("tee.sock"),
		"EHSM_DKEYCACHE_COLLATERAL=" + n.path("collateral.bin"), "EHSM_DKEYCACHE_HEARTBEAT=300ms", n.failpoints(),
	}
}

// startCore starts a core that has to wait for the DomainKey.
func (n *node) startCore(t testing.TB) {
	t.Helper()
	n.g.parts[partCore] = n.load(t, n.coreSettings(n.g.core), partCore)
}

// said waits until something of the machine has printed what re describes after the
// first n bytes.
func (n *node) said(t testing.TB, after int, re string) {
	t.Helper()
	timeout := time.After(readyTimeout)
	for pattern := regexp.MustCompile(re); ; {
		text, changed := n.g.out.after(after)
		if pattern.Match(text) {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("nobody said %q:\n%s", re, text)
		}
	}
}
