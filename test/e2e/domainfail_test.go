package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// failing builds the programs of a TEE so that they fail where a file says.
var failing = sync.OnceValues(func() (string, error) {
	build := exec.Command("go", "build", "-tags", "failpoints", "-o", failBin+string(filepath.Separator),
		"./cmd/ehsm-core", "./cmd/ehsm-dkeycache", "./cmd/ehsm-dkeyserver")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return failBin, nil
})

// failingPrograms is where failing has put them; those that others get have no
// failpoints.
func failingPrograms(t testing.TB) string {
	t.Helper()
	dir, err := failing()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{dir: true, bin: false} {
		for _, program := range []string{partCore, partCache, partServer} {
			b, err := os.ReadFile(filepath.Join(name, program))
			if err != nil {
				t.Fatal(err)
			}
			if got := bytes.Contains(b, []byte("EHSM_FAILPOINTS")); got != want {
				t.Errorf("%s in %s has failpoints: %v, want %v", program, name, got, want)
			}
		}
	}
	return dir
}

// fails has what a program of the machine does next at a point fail so.
func (n *node) fails(t testing.TB, point, action string) {
	t.Helper()
	if err := os.WriteFile(n.path("points.new"), []byte(point+" "+action+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(n.path("points.new"), n.path("points")); err != nil {
		t.Fatal(err)
	}
}

// mends ends what fails has begun.
func (n *node) mends(t testing.TB) {
	t.Helper()
	if err := os.Remove(n.path("points")); err != nil {
		t.Fatal(err)
	}
}

// part is a process of the machine.
func (n *node) part(name string) *process {
	if name == partCore || name == partKMS {
		return n.g.parts[name]
	}
	return n.parts[name]
}

// revive starts a part that has ended.
func (n *node) revive(t testing.TB, name string) {
	t.Helper()
	if name == partCore {
		n.startCore(t)
		return
	}
	n.start(t, name)
}

// dies waits until a part has been killed by a failpoint.
func (n *node) dies(t testing.TB, name string) {
	t.Helper()
	p := n.part(name)
	select {
	case <-p.exited:
	case <-time.After(readyTimeout):
		t.Fatalf("%s lives", name)
	}
	if !killed(p.err) {
		t.Errorf("%s has ended: %v, want SIGKILL", name, p.err)
	}
}

func killed(err error) bool {
	var ended *exec.ExitError
	return errors.As(err, &ended) && ended.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// What has programs pass their failpoints.
func (n *node) restartsServer(t *testing.T) {
	n.parts[partServer].kill()
	if err := os.RemoveAll(n.path("domain")); err != nil { // a worker that starts from nothing
		t.Fatal(err)
	}
	n.launchServer(t)
}

func (n *node) restartsCache(t *testing.T) {
	n.parts[partCache].kill()
	n.start(t, partCache)
}

func (n *node) restartsCore(t *testing.T) {
	n.g.kill(partCore)
	n.startCore(t)
}

// launchServer starts a dkeyserver that may not live until it serves.
func (n *node) launchServer(t *testing.T) {
	n.parts[partServer] = n.load(t, n.serverEnv(), partServer, "serve")
}

func (n *node) newManifest(t *testing.T) {
	window := 120
	if n.site.last.Settings.RequestWindow == window {
		window = 240
	}
	n.site.change(t, n.site.machines[0], func(m *manifest.Settings) { m.RequestWindow = window })
}

// TestKilledAtEachStep kills programs of the second machine at each step of the
// replication to a worker, of provisioning, and of taking a manifest. The next
// start continues, and the DomainKey is the same.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	programs := failingPrograms(t)
	t.Run("init", func(t *testing.T) { t.Parallel(); testInitKilled(t, programs) })
	t.Run("recovery", func(t *testing.T) { t.Parallel(); testRecoveryKilled(t, programs) })
	t.Run("a full disk", func(t *testing.T) { t.Parallel(); testDiskFull(t, programs) })
	t.Run("provisioning", func(t *testing.T) { t.Parallel(); testProvisioningKilled(t, programs) })
	if os.Getenv("EHSM_LONG") != "" { // it waits for time to run out
		t.Run("standing still", func(t *testing.T) { t.Parallel(); testStandsStill(t, programs) })
	}
}

// strangerAt makes a site of two machines and a third, which the manifest does not
// admit, and whose dkeycache asks the second.
func strangerAt(t *testing.T, programs string) (s *site, asks func(*testing.T)) {
	s = newSiteOf(t, programs, 3, func(m *manifest.Settings) { m.Platforms = m.Platforms[:2] })
	three := s.machines[2]
	s.machines = s.machines[:2]
	three.bare = true
	s.up(t)
	return s, func(t *testing.T) {
		if p := three.parts[partCache]; p != nil {
			p.kill()
		}
		three.start(t, partCache)
	}
}

func testProvisioningKilled(t *testing.T, programs string) {
	s, stranger := strangerAt(t, programs)
	first := s.machines[0].g.enroll(t)
	key := first.createAES(t)
	sealed := sealedBy(t, first, key)
	two := s.machines[1]
	for _, row := range []struct {
		victim, point string
		provoke       func(*testing.T)
	}{
		{partServer, "replace.write genesis.json", two.restartsServer},
		{partServer, "replace.rename genesis.json", two.restartsServer},
		{partServer, "replace.renamed genesis.json", two.restartsServer},
		{partServer, "provision.opened dkeyserver", two.restartsServer},
		{partServer, "provision.filled dkeyserver", two.restartsServer},
		{partServer, "replace.write domainkey.sealed", two.restartsServer},
		{partServer, "replace.rename domainkey.sealed", two.restartsServer},
		{partServer, "replace.renamed domainkey.sealed", two.restartsServer},
		{partServer, "provision.joined dkeyserver", two.restartsCache},
		{partServer, "provision.hand dkeyserver", two.restartsCache},
		{partCache, "provision.opened dkeycache", two.restartsCache},
		{partCache, "provision.filled dkeycache", two.restartsCache},
		{partCache, "provision.joined dkeycache", two.restartsCore},
		{partCache, "provision.hand dkeycache", two.restartsCore},
		{partCore, "provision.opened core", two.restartsCore},
		{partCore, "provision.filled core", two.restartsCore},
		{partServer, "provision.manifest dkeyserver", two.newManifest},
		{partCache, "provision.manifest dkeycache", two.newManifest},
		{partCore, "provision.manifest core", two.newManifest},
		{partServer, "replace.write waiting.json", stranger},
		{partServer, "replace.rename waiting.json", stranger},
		{partServer, "replace.write manifest-5.json", two.newManifest},
		{partServer, "replace.rename manifest-6.json", two.newManifest},
		{partServer, "replace.renamed manifest-7.json", two.newManifest},
	} {
		t.Run(row.point, func(t *testing.T) {
			two.fails(t, row.point, "kill")
			row.provoke(t)
			two.dies(t, row.victim)
			two.mends(t)
			two.revive(t, row.victim)
			for _, n := range s.machines {
				if err := n.g.awaitReady(); err != nil {
					t.Fatal(err)
				}
				opens(t, first.on(n.g), key, sealed)
			}
		})
	}
	two.said(t, 0, `a machine waits for admission`)

	// What the worker has on its disk is enough, without the root.
	s.machines[0].parts[partServer].kill()
	two.said(t, 0, fmt.Sprintf(`manifests are written.*version=%d`, s.last.Version))
	two.parts[partServer].kill()
	two.start(t, partServer)
	two.restartsCache(t)
	two.restartsCore(t)
	if err := two.g.awaitReady(); err != nil {
		t.Fatal(err)
	}
	opens(t, first.on(two.g), key, sealed)
}

// testStandsStill has a dkeyserver stand still while it hands out the DomainKey. Who
// waits for it goes to the next, and it goes on when it can.
func testStandsStill(t *testing.T, programs string) {
	s := newSiteOf(t, programs, 2, nil)
	s.up(t)
	one := s.machines[0]
	first := one.g.enroll(t)
	key := first.createAES(t)
	sealed := sealedBy(t, first, key)
	one.fails(t, "provision.hand dkeyserver", "block")
	printed := one.g.out.size()
	one.restartsCache(t)
	one.said(t, printed, `failpoint: provision.hand dkeyserver block`)
	one.said(t, printed, `has the DomainKey`)
	one.mends(t)
	one.restartsCache(t)
	one.restartsCore(t)
	for _, n := range s.machines {
		if err := n.g.awaitReady(); err != nil {
			t.Fatal(err)
		}
		opens(t, first.on(n.g), key, sealed)
	}
}

// testInitKilled kills init at each step. The next one makes the domain, or goes on
// with the one that is there, and then it is there as a whole.
func testInitKilled(t *testing.T, programs string) {
	s := newSiteOf(t, programs, 1, nil)
	n := s.machines[0]
	n.g.parts = map[string]*process{}
	for i, row := range []struct {
		point string
		made  bool // before the end
	}{
		{"create.write genesis.json", false},
		{"create.write domainkey.sealed", false},
		{"create.rename *", false},
		{"create.renamed *", true},
		{"init.made domain", true},
	} {
		t.Run(row.point, func(t *testing.T) {
			dir := n.path(fmt.Sprint("again-", i))
			init := func() (string, error) {
				cmd := exec.Command(n.program(partServer), "init", "--no-recovery", n.path("draft.json"))
				cmd.Env = n.g.environ(n.serverSettings("EHSM_DKEYSERVER_DOMAIN=" + dir)...)
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			n.fails(t, row.point, "kill")
			out, err := init()
			if !killed(err) {
				t.Fatalf("init: %v, want SIGKILL\n%s", err, out)
			}
			n.mends(t)
			out, err = init()
			if says := map[bool]string{true: "was made already", false: "made a domain"}[row.made]; err != nil || !strings.Contains(out, says) {
				t.Fatalf("the next init: %v\n%s", err, out)
			}
			n.foundIn(t, dir)
		})
	}
}

// foundIn signs the genesis in a directory, which init has made, and serves it.
func (n *node) foundIn(t *testing.T, dir string) {
	t.Helper()
	genesis := filepath.Join(dir, manifest.GenesisFile)
	m, err := manifest.Parse(n.site.read(t, genesis))
	if err != nil {
		t.Fatal(err)
	}
	n.site.put(t, m, genesis)
	printed := n.g.out.size()
	p := spawnFile(t, n.g.out, n.g.environ(n.serverSettings("EHSM_DKEYSERVER_DOMAIN="+dir)...), n.program(partServer), "serve")
	defer p.kill()
	if _, err := p.await(printed, servesRole); err != nil {
		t.Error(err)
	}
}

// testDiskFull has no room for what a dkeyserver writes. It says so, serves on, and
// writes when there is room again.
func testDiskFull(t *testing.T, programs string) {
	s, stranger := strangerAt(t, programs)
	one, two := s.machines[0], s.machines[1]
	first := one.g.enroll(t)
	key := first.createAES(t)
	sealed := sealedBy(t, first, key)
	served := func(t *testing.T) {
		t.Helper()
		two.restartsCache(t)
		two.restartsCore(t)
		for _, n := range s.machines {
			if err := n.g.awaitReady(); err != nil {
				t.Fatal(err)
			}
			opens(t, first.on(n.g), key, sealed)
		}
	}
	t.Run("init", func(t *testing.T) {
		one.fails(t, "create.write *", "full")
		cmd := exec.Command(one.program(partServer), "init", "--no-recovery", one.path("draft.json"))
		cmd.Env = one.g.environ(one.serverSettings("EHSM_DKEYSERVER_DOMAIN=" + one.path("full"))...)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "no space left on device") {
			t.Errorf("init: %v\n%s", err, out)
		}
		if left, _ := filepath.Glob(one.path(".domain-*")); len(left) > 0 {
			t.Errorf("init has left %v", left)
		}
		one.mends(t)
		cmd = exec.Command(cmd.Path, cmd.Args[1:]...)
		cmd.Env = one.g.environ(one.serverSettings("EHSM_DKEYSERVER_DOMAIN=" + one.path("full"))...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("the next init: %v\n%s", err, out)
		}
	})
	for _, file := range []string{"genesis.json", "domainkey.sealed"} {
		t.Run("a worker writes "+file, func(t *testing.T) {
			printed := two.g.out.size()
			two.fails(t, "replace.write "+file, "full")
			two.restartsServer(t)
			two.said(t, printed, `not (written|kept).*no space left on device`)
			one.parts[partServer].kill() // the worker serves alone
			served(t)
			printed = two.g.out.size()
			one.start(t, partServer)
			two.mends(t)
			two.said(t, printed, map[string]string{"genesis.json": "manifests are written", "domainkey.sealed": "has the DomainKey"}[file])
			two.parts[partServer].kill()
			two.start(t, partServer)
			served(t)
		})
	}
	t.Run("a worker writes a manifest", func(t *testing.T) {
		printed := two.g.out.size()
		two.fails(t, "replace.write manifest-2.json", "full")
		two.newManifest(t)
		two.said(t, printed, `not written.*no space left on device`)
		two.said(t, printed, `ehsm-core: serves domain [0-9a-f]+ under manifest 2`)
		served(t)
		printed = two.g.out.size()
		two.mends(t)
		two.said(t, printed, `manifests are written.*version=2`)
		if b := s.read(t, filepath.Join(two.path("domain"), manifest.FileName(2))); !bytes.Equal(b, s.read(t, filepath.Join(one.path("domain"), manifest.FileName(2)))) {
			t.Error("the manifest is another one")
		}
	})
	t.Run("the list of machines that wait", func(t *testing.T) {
		printed := two.g.out.size()
		two.fails(t, "replace.write waiting.json", "full")
		stranger(t)
		two.said(t, printed, `list of waiting machines is not written.*no space left on device`)
		served(t)
		printed = two.g.out.size()
		two.mends(t)
		two.said(t, printed, `a machine waits for admission`)
	})
}
