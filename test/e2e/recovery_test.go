package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// A ceremony is a site whose custodians can have its DomainKey restored.
type ceremony struct {
	*site
	people string // directory of what the custodians have
}

// newCeremony makes a domain on the first of so many machines, which alone it admits,
// with 2 of 3 custodians.
func newCeremony(t testing.TB, machines int) *ceremony {
	t.Helper()
	return newCeremonyOf(t, bin, machines)
}

// newCeremonyOf is newCeremony with the programs of a directory.
func newCeremonyOf(t testing.TB, programs string, machines int) *ceremony {
	t.Helper()
	return ceremonyOn(t, newSiteOf(t, programs, machines, func(s *manifest.Settings) { s.Platforms = s.Platforms[:1] }))
}

// ceremonyOn makes a domain with custodians in place of that of a site.
func ceremonyOn(t testing.TB, s *site) *ceremony {
	t.Helper()
	c := &ceremony{site: s}
	c.people = filepath.Join(c.dir, "people")
	if err := os.Mkdir(c.people, 0o700); err != nil {
		t.Fatal(err)
	}
	draft, operator, err := manifest.ThrowAway(c.last.Settings)
	if err != nil {
		t.Fatal(err)
	}
	c.operator, draft.Custodians = operator, &manifest.Quorum{Threshold: 2}
	for _, name := range []string{"dave", "erin", "fay"} {
		draft.Custodians.Members = append(draft.Custodians.Members, c.custodian(t, name))
	}
	b, err := draft.Encode()
	if err != nil {
		t.Fatal(err)
	}
	n := c.machines[0]
	if err := errors.Join(os.RemoveAll(n.path("domain")), os.WriteFile(n.path("draft.json"), b, 0o600)); err != nil {
		t.Fatal(err)
	}
	c.domain = strings.TrimSpace(c.dkeyserver(t, n, 0, "init", n.path("draft.json")))
	c.dkeyserver(t, n, 1, "init", "--no-recovery", n.path("draft.json"))
	genesis := filepath.Join(n.path("domain"), manifest.GenesisFile)
	m, err := manifest.Parse(c.read(t, genesis))
	if err != nil {
		t.Fatal(err)
	}
	c.put(t, m, genesis)
	if c.last, err = manifest.Open(c.read(t, genesis)); err != nil || c.last.Recovery == nil {
		t.Fatalf("the genesis: %v", err)
	}
	return c
}

// custodian makes the key of a custodian.
func (c *ceremony) custodian(t testing.TB, name string) manifest.Person {
	t.Helper()
	c.ehsm(t, 0, "domain", "keygen", "--duty", "custodian", "--name", name, "--out", c.of(name+".key"))
	p, _, err := manifest.ParsePublic(c.read(t, c.of(name+".key.pub")))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (c *ceremony) of(name string) string { return filepath.Join(c.people, name) }

// ehsm runs the command line of a person, who has no settings, and returns what it
// prints.
func (c *ceremony) ehsm(t testing.TB, code int, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "ehsm"), args...)
	cmd.Env = []string{"HOME=" + c.people}
	out, err := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("ehsm %s: got %d, want %d: %v\n%s", strings.Join(args, " "), got, code, err, out)
	}
	return string(out)
}

// dkeyserver runs a command of a machine's dkeyserver to its end and returns its
// standard output, or what else it said where it is to fail.
func (c *ceremony) dkeyserver(t testing.TB, n *node, code int, args ...string) string {
	t.Helper()
	cmd := exec.Command(n.program(partServer), args...)
	cmd.Env = n.g.environ(n.serverEnv()...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("ehsm-dkeyserver %v: got %d, want %d: %v\n%s", args, got, code, err, &stderr)
	}
	if code != 0 {
		return stderr.String()
	}
	return stdout.String()
}

// release has a custodian judge the request on a machine, and brings the answer there.
func (c *ceremony) release(t testing.TB, n *node, code int, name, share string, more ...string) string {
	t.Helper()
	args := append([]string{"domain", "custodian", "release", "--key", c.of(name + ".key"), "--share", share, "--domain", c.domain,
		"--out", c.of(name + ".answer"), n.path("domain.restore/request")}, more...)
	out := c.ehsm(t, code, args...)
	if code == 0 {
		c.bring(t, n, name+".answer", c.read(t, c.of(name+".answer")))
	}
	return out
}

// bring puts an answer beside the request.
func (c *ceremony) bring(t testing.TB, n *node, name string, answer []byte) {
	t.Helper()
	if err := os.WriteFile(n.path("domain.restore/"+name), answer, 0o600); err != nil {
		t.Fatal(err)
	}
}

// restoring starts a restoration on a machine and waits until it has asked.
func (c *ceremony) restoring(t testing.TB, n *node, args ...string) *process {
	t.Helper()
	printed := n.g.out.size()
	p := spawnFile(t, n.g.out, n.g.environ(n.serverEnv()...), n.program(partServer), append([]string{"restore"}, args...)...)
	if _, err := p.await(printed, regexp.MustCompile(`waits for the shares of 2 custodians`)); err != nil {
		text, _ := n.g.out.after(printed)
		t.Fatalf("%v\n%s", err, text)
	}
	return p
}

func contains(t testing.TB, text string, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(text, want) {
			t.Errorf("nobody said %q, but:\n%s", want, text)
		}
	}
}

// TestRecovery loses all machines of a domain, and restores its DomainKey with two of
// three custodians on a machine that the operators then admit.
func TestRecovery(t *testing.T) {
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

	share := func(name string) string { return one.path("domain/share-" + name + ".sealed") }
	for _, name := range []string{"dave", "erin", "fay"} {
		if err := os.WriteFile(c.of("share-"+name), c.read(t, share(name)), 0o600); err != nil {
			t.Fatal(err)
		}
		contains(t, c.ehsm(t, 0, "domain", "custodian", "check", "--key", c.of(name+".key"), "--share", share(name), "--domain", c.domain,
			one.path("domain/genesis.json")), "opens and is one of the recovery key")
	}
	one.said(t, 0, "the escrow is written")
	backup := c.of("domain.backup")
	contains(t, c.ehsm(t, 0, "domain", "backup", "--dir", one.path("domain"), "--out", backup), c.domain, "version 1", "2 of dave, erin, fay")
	contains(t, c.ehsm(t, 0, "domain", "backup", "show", "--domain", c.domain, backup), c.domain)

	// All is lost but the database, the backup and what the people have.
	one.g.kill()
	clear(one.g.parts)
	for _, part := range []string{partCache, partServer, partTEE} {
		one.parts[part].kill()
	}
	if err := errors.Join(os.RemoveAll(one.path("domain")), os.RemoveAll(one.path("sim"))); err != nil {
		t.Fatal(err)
	}
	c.machines = c.machines[1:] // the root is another one now

	contains(t, c.dkeyserver(t, two, 1, "restore", backup), "platform is not admitted", fmt.Sprintf("%x", two.ppid), "operators admit it with a manifest")
	second := c.of("manifest-2.json")
	c.admit(t, two, second)
	c.refuses(t, two, backup, second)

	p := c.restoring(t, two, backup, second)
	c.requestRefusals(t, two)
	printed := two.g.out.size()
	contains(t, c.release(t, two, 0, "dave", c.of("share-dave"), "--least-manifest", "2"), "the one that you name", "machine: restored, PPID", "released the share of dave")
	two.said(t, printed, `has 1 of 2 shares: dave`)
	c.bring(t, two, "again.answer", c.read(t, c.of("dave.answer")))
	two.said(t, printed, `again.answer is refused: this share is there already`)
	c.bring(t, two, "share.answer", c.read(t, c.of("share-erin")))
	two.said(t, printed, `share.answer is refused: invalid file of a recovery`)
	c.release(t, two, 0, "erin", backup) // which has her share
	<-p.exited
	if p.err != nil {
		t.Fatalf("the restoration: %v", p.err)
	}
	two.said(t, printed, `restored the DomainKey, versions \[1\]`)
	if _, err := os.Stat(two.path("domain.restore")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the restoration leaves its directory: %v", err)
	}
	contains(t, c.dkeyserver(t, two, 1, "restore", backup, second), "nothing is restored over it")

	for _, part := range []string{partServer, partCache} {
		two.start(t, part)
	}
	two.g.start(t)
	opens(t, tenant.on(two.g), key, sealed)
	contains(t, c.ehsm(t, 0, "domain", "backup", "--dir", two.path("domain"), "--out", c.of("next.backup")), "manifests   1 to 2")
}

// admit has the operator sign a manifest that admits a machine alone.
func (c *ceremony) admit(t testing.TB, n *node, path string) {
	t.Helper()
	m, err := c.last.Follow(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	m.Statement.Settings.Platforms = []manifest.Platform{{Name: "restored", PPID: n.ppid}}
	c.put(t, m, path)
	if c.last, err = c.last.Next(c.read(t, path), time.Now()); err != nil {
		t.Fatal(err)
	}
}

// refuses has restorations that end before custodians are asked, or without enough
// of them.
func (c *ceremony) refuses(t testing.TB, n *node, backup, second string) {
	t.Helper()
	honest := n.bin
	n.bin = c.sign(t, bin, "strange", filepath.Join(c.dir, "stranger.seed"))
	contains(t, c.dkeyserver(t, n, 1, "restore", backup, second), "enclave is not one of the policy")
	n.bin = honest
	damaged := c.read(t, backup)
	damaged[len(damaged)/2] ^= 1
	if err := os.WriteFile(c.of("damaged"), damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	contains(t, c.dkeyserver(t, n, 1, "restore", c.of("damaged"), second), "backup of a domain", "damaged")
	contains(t, c.dkeyserver(t, n, 1, "restore", second), "it is no backup of a domain")

	p := c.restoring(t, n, backup, second)
	printed := n.g.out.size()
	c.release(t, n, 0, "fay", c.of("share-fay"))
	n.said(t, printed, `has 1 of 2 shares: fay`)
	if err := p.stop(); err == nil {
		t.Error("a restoration with one share of two succeeds")
	}
	n.said(t, printed, `nothing was restored: too few shares: 1 of the 2`)
	if _, err := os.Stat(n.path("domain")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a domain is there: %v", err)
	}
	// Her answer is for the restoration that has ended.
	printed = n.g.out.size()
	next := c.restoring(t, n, backup, second)
	n.said(t, printed, `fay.answer is refused: answer to another restoration`)
	if err := next.stop(); err == nil {
		t.Error("a restoration without shares succeeds")
	}
}

// requestRefusals has requests to which a custodian's tool releases nothing.
func (c *ceremony) requestRefusals(t testing.TB, n *node) {
	t.Helper()
	share := c.of("share-dave")
	contains(t, c.release(t, n, 1, "dave", share, "--domain", strings.Repeat("ab", 32)), "request is of another domain", "nothing was released")
	contains(t, c.release(t, n, 1, "dave", share, "--least-manifest", "3"), "older manifest: 2, want 3")
	contains(t, c.release(t, n, 1, "erin", share), "does not open with this key")
	path := n.path("domain.restore/request")
	request := c.read(t, path)
	changed := append([]byte(nil), request...)
	changed[30] ^= 1 // of the backup's hash
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	contains(t, c.release(t, n, 1, "dave", share), "quote was made for another purpose", "put together by somebody")
	if err := os.WriteFile(path, request, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.of("dave.answer")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an answer is there: %v", err)
	}
}

// TestReplacedCustodian has a custodian lose the share: another takes the place, and the
// escrow is for them. Then the DomainKey is rotated, and the escrow has both versions.
func TestReplacedCustodian(t *testing.T) {
	t.Parallel()
	c := newCeremony(t, 1)
	n := c.machines[0]
	n.start(t, partServer)
	n.said(t, 0, "the escrow is written")
	c.custodian(t, "gus")
	genesis, second := n.path("domain/genesis.json"), c.of("manifest-2.json")
	contains(t, c.ehsm(t, 0, "domain", "manifest", "edit", genesis, "--out", second, "--remove", "custodians.members=fay", "--add", "custodians.members=@"+c.of("gus.key.pub")),
		"gus with key", "ehsm domain recovery")
	c.dkeyserver(t, n, 0, "recovery", second)
	contains(t, c.ehsm(t, 0, "domain", "manifest", "diff", genesis, second), "ADMITS recovery: key", "ADMITS custodians: gus")
	m, err := manifest.Parse(c.read(t, second))
	if err != nil {
		t.Fatal(err)
	}
	printed := n.g.out.size()
	path := filepath.Join(n.path("domain"), manifest.FileName(2))
	c.put(t, m, path)
	n.said(t, printed, "the escrow is written")
	contains(t, c.dkeyserver(t, n, 1, "recovery", path), "is signed already")

	backup := c.of("domain.backup")
	contains(t, c.ehsm(t, 0, "domain", "backup", "--dir", n.path("domain"), "--out", backup), "2 of dave, erin, gus")
	check := func(code int, name, share string) string {
		return c.ehsm(t, code, "domain", "custodian", "check", "--key", c.of(name+".key"), "--share", share, "--domain", c.domain, genesis, path)
	}
	for _, name := range []string{"dave", "erin", "gus"} {
		contains(t, check(0, name, n.path("domain/share-"+name+"-m2.sealed")), "opens and is one of the recovery key")
	}
	contains(t, c.ehsm(t, 0, "domain", "status", "--door", n.path("domain/door.sock"), "--domain", c.domain), "2 of dave, erin, gus restore version 1")
	contains(t, check(1, "dave", n.path("domain/share-dave.sealed")), "for another recovery key", "custodians have changed")
	contains(t, check(1, "fay", n.path("domain/share-fay.sealed")), "for another recovery key")

	third := filepath.Join(n.path("domain"), manifest.FileName(3))
	c.ehsm(t, 0, "domain", "manifest", "edit", path, "--out", c.of("manifest-3.json"), "--set", `settings.domainKey={"version":2}`)
	if m, err = manifest.Parse(c.read(t, c.of("manifest-3.json"))); err != nil {
		t.Fatal(err)
	}
	printed = n.g.out.size()
	c.put(t, m, third)
	n.said(t, printed, "the escrow is written.*versions=2")
	contains(t, c.ehsm(t, 0, "domain", "backup", "--dir", n.path("domain"), "--out", backup), "versions 1, 2")
}

// testRecoveryKilled kills a dkeyserver at each step of writing the escrow, and of a
// restoration. The next start has an escrow, and the next restoration succeeds.
func testRecoveryKilled(t *testing.T, programs string) {
	c := newCeremonyOf(t, programs, 1)
	n := c.machines[0]
	n.g.parts = map[string]*process{}
	for _, point := range []string{"replace.write", "replace.rename", "replace.renamed"} {
		n.fails(t, point+" escrow.sealed", "kill")
		n.launchServer(t)
		<-n.parts[partServer].exited
		if err := n.parts[partServer].err; !killed(err) {
			t.Fatalf("%s: %v, want SIGKILL", point, err)
		}
		n.mends(t)
		printed := n.g.out.size()
		n.start(t, partServer)
		if point != "replace.renamed" { // after which it is there
			n.said(t, printed, "the escrow is written")
		}
		c.ehsm(t, 0, "domain", "backup", "--dir", n.path("domain"), "--out", c.of("domain.backup"))
		n.parts[partServer].kill()
		if err := os.Remove(n.path("domain/escrow.sealed")); err != nil {
			t.Fatal(err)
		}
	}
	for _, point := range []string{"create.write escrow.sealed", "create.write domainkey.sealed", "create.rename *", "create.renamed *"} {
		if err := os.RemoveAll(n.path("domain")); err != nil {
			t.Fatal(err)
		}
		restored := func() error {
			p := c.restoring(t, n, c.of("domain.backup"))
			c.release(t, n, 0, "dave", c.of("domain.backup"))
			c.release(t, n, 0, "fay", c.of("domain.backup"))
			<-p.exited
			return p.err
		}
		n.fails(t, point, "kill")
		if err := restored(); !killed(err) {
			t.Fatalf("%s: %v, want SIGKILL", point, err)
		}
		n.mends(t)
		_, err := os.Stat(n.path("domain"))
		if made := err == nil; made != (point == "create.renamed *") {
			t.Fatalf("%s: a domain is there: %v", point, made)
		}
		if err != nil {
			if err := restored(); err != nil {
				t.Fatalf("%s: the next restoration: %v", point, err)
			}
		}
		n.start(t, partServer)
		n.parts[partServer].kill()
	}
}
