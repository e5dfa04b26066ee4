package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// up starts all of a site, in the order in which each finds the others.
func (s *site) up(t testing.TB) {
	t.Helper()
	for _, n := range s.machines {
		n.start(t, partServer)
		n.start(t, partCache)
		n.g.start(t)
	}
}

// sealed encrypts at a node, and opens decrypts.
func sealedBy(t testing.TB, c *tenant, key string) string {
	t.Helper()
	return c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}).text(t, "ciphertext")
}

func opens(t testing.TB, c *tenant, key, sealed string) {
	t.Helper()
	if r := c.call(t, "Decrypt", fields{"keyid": key, "ciphertext": sealed}); r.Code != 200 || r.Result["plaintext"] != "AAAA" {
		t.Errorf("decrypted to %s", r.body)
	}
}

// TestSite has two machines with a root and a worker: keys of one node are used on
// the other, and neither traffic nor a new core or dkeycache needs the root. A
// manifest that operators put into the directory of one dkeyserver reaches all.
func TestSite(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, nil)
	s.up(t)
	one, two := s.machines[0], s.machines[1]
	first := one.g.enroll(t)
	second := first.on(two.g)
	key := first.createAES(t)
	sealed := sealedBy(t, first, key)
	opens(t, second, key, sealed)

	one.parts[partServer].kill()
	opens(t, second, key, sealedBy(t, first, key))
	two.g.kill(partCore)
	two.g.start(t)
	opens(t, second, key, sealed)
	two.parts[partCache].kill()
	two.start(t, partCache)
	two.g.kill(partCore)
	two.g.start(t)
	opens(t, second, key, sealed)

	one.start(t, partServer)
	printed := []int{one.g.out.size(), two.g.out.size()}
	s.change(t, two, func(m *manifest.Settings) { m.RequestWindow = 120 })
	for i, n := range s.machines {
		n.said(t, printed[i], `ehsm-core: serves domain [0-9a-f]+ under manifest 2`)
		if err := n.g.awaitReady(); err != nil {
			t.Fatal(err)
		}
	}
	opens(t, first, key, sealed)
	one.said(t, printed[0], `manifests are written.*version=2`)
	if _, err := os.Stat(filepath.Join(one.path("domain"), manifest.FileName(2))); err != nil {
		t.Errorf("the root does not keep the manifest: %v", err)
	}
}

// TestBlackStart starts a site from the wrong end, after the power has failed: it
// serves without a human.
func TestBlackStart(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, nil)
	s.up(t)
	first := s.machines[0].g.enroll(t)
	key := first.createAES(t)
	sealed := sealedBy(t, first, key)
	for _, n := range s.machines {
		n.g.kill()
		n.parts[partCache].kill()
		n.parts[partServer].kill()
	}
	begin := time.Now()
	one, two := s.machines[0], s.machines[1]
	one.startCore(t)
	two.start(t, partCache)
	two.startCore(t)
	two.start(t, partServer)
	one.start(t, partCache)
	one.start(t, partServer)
	for _, n := range s.machines {
		n.g.launch(t, partKMS)
		if err := n.g.awaitReady(); err != nil {
			t.Fatal(err)
		}
		opens(t, first.on(n.g), key, sealed)
	}
	t.Logf("the site serves %s after its start", time.Since(begin))
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("black start took %s", took)
	}
}

// TestSiteRefusals has programs and machines that do not belong to a domain.
func TestSiteRefusals(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, nil)
	s.up(t)
	one, two := s.machines[0], s.machines[1]
	tenant := one.g.enroll(t)
	key := tenant.createAES(t)
	sealed := sealedBy(t, tenant, key)

	t.Run("a core of another signer", func(t *testing.T) {
		strange := s.sign(t, bin, "strange", filepath.Join(s.dir, "stranger.seed"))
		s.refusesCore(t, two, filepath.Join(strange, partCore), two.coreSettings("unix:"+two.path("s.sock")), "does not admit this program")
	})
	t.Run("a changed core", func(t *testing.T) { // whose signature is no longer its own
		changed := filepath.Join(s.dir, "changed")
		if err := os.Mkdir(changed, 0o700); err != nil {
			t.Fatal(err)
		}
		copyFile(t, two.program(partCore), filepath.Join(changed, partCore))
		f, err := os.OpenFile(filepath.Join(changed, partCore), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString("x")
		f.Close()
		s.refusesCore(t, two, filepath.Join(changed, partCore), two.coreSettings("unix:"+two.path("s.sock")), "does not admit this program")
	})
	t.Run("a core of another domain", func(t *testing.T) {
		env := append(two.coreSettings("unix:"+two.path("s.sock")), "EHSM_CORE_DOMAIN_ID="+strings.Repeat("ab", 32))
		s.refusesCore(t, two, two.program(partCore), env, "peer belongs to another domain")
	})
	t.Run("a dkeycache as a core", func(t *testing.T) {
		env := append(two.cacheSettings(), "EHSM_DKEYCACHE_LISTEN=unix:"+two.path("s.sock"), "EHSM_DKEYCACHE_DOMAIN_ID="+strings.Repeat("ab", 32))
		s.refusesCore(t, two, two.program(partCache), env, "peer belongs to another domain")
	})
	t.Run("a machine that is not admitted", func(t *testing.T) {
		n := s.addMachine(t, 2, two.bin, "fleet")
		s.machines = s.machines[:2]
		printed := n.g.out.size()
		n.start(t, partCache)
		n.said(t, printed, `does not admit this program on this machine`)
		one.said(t, 0, `a machine waits for admission`)
		if list := s.read(t, filepath.Join(one.path("domain"), "waiting.json")); !strings.Contains(string(list), fmt.Sprintf("%x", n.ppid)) {
			t.Errorf("the list of machines that wait is %s", list)
		}
		n.parts[partCache].kill()
	})
	t.Run("a node of another domain", func(t *testing.T) {
		other := newSite(t, 1, nil)
		n := other.machines[0]
		n.start(t, partServer)
		printed := n.g.out.size()
		env := append(n.cacheSettings(), "EHSM_DKEYCACHE_SERVERS="+one.server)
		p := spawnFile(t, n.g.out, n.g.environ(env...), n.program(partCache))
		n.said(t, printed, `peer belongs to another domain`)
		p.kill()
		// Not even with the id of this domain: its machines are of another fleet.
		env = append(env, "EHSM_DKEYCACHE_DOMAIN_ID="+s.domain)
		printed = n.g.out.size()
		p = spawnFile(t, n.g.out, n.g.environ(env...), n.program(partCache))
		n.said(t, printed, `does not admit this program on this machine`)
		p.kill()
		n.g.parts[partCore], n.g.parts[partKMS] = nil, nil
	})
	opens(t, tenant, key, sealed)

	// A machine is taken out of the domain: its core loses the DomainKey.
	printed := two.g.out.size()
	s.change(t, one, func(m *manifest.Settings) {
		m.Platforms = slices.DeleteFunc(slices.Clone(m.Platforms), func(p manifest.Platform) bool { return p.PPID == two.ppid })
	})
	two.said(t, printed, `serves no longer.*does not admit this program`)
	if r := tenant.on(two.g).call(t, "Decrypt", fields{"keyid": key, "ciphertext": sealed}); r.Code == 200 {
		t.Errorf("a node that was removed decrypts: %s", r.body)
	}
	if err := one.g.awaitReady(); err != nil {
		t.Fatal(err)
	}
	opens(t, tenant, key, sealed)
}

// refusesCore starts a program beside a node's own and expects it to be refused.
func (s *site) refusesCore(t *testing.T, n *node, path string, env []string, says string) {
	t.Helper()
	out := newOutput()
	p := spawnFile(t, out, n.g.environ(env...), path)
	defer p.kill()
	timeout := time.After(readyTimeout)
	for {
		text, changed := out.after(0)
		if servesDomain.Match(text) && !strings.Contains(path, partCache) {
			t.Fatalf("it serves: %s", text)
		}
		if strings.Contains(string(text), says) {
			return
		}
		select {
		case <-changed:
		case <-p.exited:
			t.Fatalf("it has ended: %s", text)
		case <-timeout:
			t.Fatalf("nobody said %q: %s", says, text)
		}
	}
}
