package e2e

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// An operator runs ehsm domain on a machine.
func (n *node) operator(args ...string) (stdout, stderr string, err error) {
	cmd := exec.Command(filepath.Join(bin, "ehsm"), append([]string{"domain"}, args...)...)
	cmd.Dir = n.site.dir
	cmd.Env = append(os.Environ(), "HOME="+n.site.dir, "EHSM_DKEYSERVER_DOMAIN="+n.path("domain"), "EHSM_DOMAIN_ID="+n.site.domain)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// seen is what status says.
type seen struct {
	overview.Status
	Signed, Pinned bool
	Warnings       []overview.Warning
}

func (n *node) status(t *testing.T) (s seen) {
	t.Helper()
	out, errs, err := n.operator("status", "--output", "json")
	if err != nil {
		t.Fatalf("status: %v: %s", err, errs)
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// awaitStatus asks until the status is as wanted.
func (n *node) awaitStatus(t *testing.T, what string, ok func(*seen) bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(readyTimeout)
	for {
		s := n.status(t)
		if ok(&s) {
			return
		}
		select {
		case <-tick.C:
		case <-timeout:
			out, _, _ := n.operator("status")
			t.Fatalf("waited for: %s\n%s", what, out)
		}
	}
}

// count is how many programs of each role are in a state, with the DomainKey.
func (s *seen) count(state overview.State) string {
	n := map[string]int{}
	for _, m := range s.Members {
		if m.State == state && m.DomainKey == 1 {
			n[m.Role]++
		}
	}
	return fmt.Sprint(n["dkeyserver"], n["dkeycache"], n["core"])
}

// TestOperator has an operator look at a running domain, let a machine in and take
// one out.
func TestOperator(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, nil)
	s.up(t)
	one, two := s.machines[0], s.machines[1]
	for _, n := range s.machines {
		n.awaitStatus(t, "everybody", func(s *seen) bool { return s.count(overview.Connected) == "2 2 2" })
	}
	got := one.status(t)
	if !got.Signed || !got.Pinned || got.Domain.ID.String() != s.domain || got.Manifest.Version != 1 || len(got.Manifest.Signers) != 1 || got.Server.Kind != "root" {
		t.Errorf("got %+v", got)
	}
	for _, m := range got.Members {
		if want := map[manifest.PPID]string{one.ppid: "machine 0", two.ppid: "machine 1"}[m.PPID]; want == "" || m.Machine != want || m.Manifest != 1 {
			t.Errorf("got %+v", m)
		}
	}
	out, _, err := one.operator("status")
	if err != nil || !strings.Contains(out, "WARNING  simulated platforms") || strings.Contains(out, "only one dkeyserver") {
		t.Errorf("status: %v\n%s", err, out)
	}
	t.Logf("\n%s", out)
	if out, errs, err := one.operator("status", "--domain", strings.Repeat("ab", 32)); err == nil || !strings.Contains(errs, "want abab") {
		t.Errorf("another domain: %s%s", out, errs)
	}

	// A machine that is not admitted waits, also when the dkeyserver was killed.
	three := s.addMachine(t, 2, two.bin, "fleet")
	printed := one.g.out.size()
	three.start(t, partCache)
	three.startCore(t)
	one.said(t, printed, `a machine waits for admission`)
	three.parts[partCache].kill()
	one.parts[partServer].kill()
	if _, errs, err := one.operator("status"); err == nil || !strings.Contains(errs, "hint: is ehsm-dkeyserver serve running") {
		t.Errorf("nobody there: %v %s", err, errs)
	}
	one.start(t, partServer)
	if got := one.status(t); len(got.Waiting) != 1 || got.Waiting[0].PPID != manifest.PPID(three.ppid) || got.Waiting[0].Was != "" {
		t.Errorf("waiting: got %+v", got.Waiting)
	}
	three.start(t, partCache)

	// Nobody but the operator lets it in.
	key := filepath.Join(s.dir, "operator.key")
	writeKey(t, key, "throw-away", s.operator.(ed25519.PrivateKey))
	stranger := filepath.Join(s.dir, "stranger.key")
	_, other, _ := ed25519.GenerateKey(nil)
	writeKey(t, stranger, "mallory", other)
	if _, errs, err := one.operator("admit", "--waiting", "1", "--name", "machine 2", "--key", stranger); err == nil || !strings.Contains(errs, "no operator's") {
		t.Errorf("a stranger's key: %v %s", err, errs)
	}
	if _, errs, err := one.operator("admit", "--waiting", "1", "--name", "machine 2"); err != nil {
		t.Fatalf("admit: %v %s", err, errs)
	}
	prepared := filepath.Join(s.dir, manifest.FileName(2))
	if _, errs, err := one.operator("submit", prepared); err == nil || !strings.Contains(errs, "0 of 1 operators signed") || !strings.Contains(errs, "hint: ehsm domain manifest sign") {
		t.Errorf("without a signature: %v %s", err, errs)
	}
	forge(t, prepared, other)
	if _, errs, err := one.operator("submit", prepared); err == nil || !strings.Contains(errs, "somebody who is no operator") {
		t.Errorf("forged: %v %s", err, errs)
	}
	foreign := newForeign(t, s.dir)
	if _, errs, err := one.operator("submit", foreign); err == nil || !strings.Contains(errs, "another domain") {
		t.Errorf("of another domain: %v %s", err, errs)
	}
	if err := os.Remove(prepared); err != nil {
		t.Fatal(err)
	}
	if out, errs, err := one.operator("admit", "--waiting", "1", "--name", "machine 2", "--key", key); err != nil || !strings.Contains(out, "manifest 2 admits machine 2") {
		t.Fatalf("admit: %v %s%s", err, out, errs)
	}
	two.awaitStatus(t, "the third machine, at the worker", func(s *seen) bool { return s.count(overview.Connected) == "2 3 3" })
	one.awaitStatus(t, "nobody who waits", func(s *seen) bool { return len(s.Waiting) == 0 && s.Manifest.Version == 2 })

	// A machine is taken out: it loses the DomainKey, and the others see it.
	printed = three.g.out.size()
	if out, errs, err := one.operator("remove", "machine 2", "--key", key); err != nil {
		t.Fatalf("remove: %v %s%s", err, out, errs)
	}
	three.said(t, printed, `serves no longer.*does not admit this program`)
	one.awaitStatus(t, "a removed node", func(s *seen) bool { return s.count(overview.Removed) == "0 1 1" })
	one.awaitStatus(t, "it waits, and has a name", func(s *seen) bool { return len(s.Waiting) == 1 && s.Waiting[0].Was == "machine 2" })
	if _, errs, err := one.operator("submit", prepared); err == nil || !strings.Contains(errs, "version 3 is in force") {
		t.Errorf("an old manifest: %v %s", err, errs)
	}
	if out, errs, err := one.operator("submit", "--wait", "30s", manifest.FileName(3)); err != nil || !strings.Contains(out, "in force everywhere") {
		t.Errorf("submit again: %v %s%s", err, out, errs)
	}
	out, _, _ = one.operator("status")
	t.Logf("\n%s", out)
	out, _, err = two.operator("nodes")
	t.Logf("%v\n%s", err, out)
}

func writeKey(t *testing.T, path, name string, key ed25519.PrivateKey) {
	t.Helper()
	text := fmt.Sprintf("ehsm-operator-secret-v1 %s %s\n", name, base64.StdEncoding.EncodeToString(key.Seed()))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// forge signs a manifest in a file with a key that is no operator's.
func forge(t *testing.T, path string, key ed25519.PrivateKey) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Sign(key); err != nil {
		t.Fatal(err)
	}
	if b, err = m.Encode(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// newForeign is a manifest that follows in a domain of its own.
func newForeign(t *testing.T, dir string) string {
	t.Helper()
	d, operator, err := manifest.ThrowAway(manifest.Defaults(manifest.Development))
	if err != nil {
		t.Fatal(err)
	}
	public, _, _ := ed25519.GenerateKey(nil)
	m := d.Complete(public, nil, time.Now().Add(-time.Minute))
	if err := m.Sign(operator); err != nil {
		t.Fatal(err)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	state, err := manifest.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = state.Follow(time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := m.Sign(operator); err != nil {
		t.Fatal(err)
	}
	if b, err = m.Encode(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "foreign.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestFoundDomain founds a domain with ehsm domain init, which is run again after the
// id was lost, serves it and looks at it.
func TestFoundDomain(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, nil)
	n := s.machines[0]
	dir := n.path("found")
	for _, p := range []struct{ duty, name string }{{"operator", "alice"}, {"administrator", "frank"}} {
		if _, errs, err := n.operator("keygen", "--duty", p.duty, "--name", p.name, "--out", p.name+".key"); err != nil {
			t.Fatal(err, errs)
		}
	}
	root := filepath.Join(s.dir, "root.pem")
	if err := os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.root.Root().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	init := func(key ...string) (string, string, error) {
		args := []string{
			"domain", "init", "--mode", "development", "--no-recovery", "--operator", "alice.key.pub", "--operator-threshold", "1", "--administrator", "frank.key.pub",
			"--signer", s.signer(t, n.bin).String(), "--machine", fmt.Sprintf("node 1=%x", n.ppid), "--sim-root", root, "--dkeyserver", n.program(partServer),
		}
		cmd := exec.Command(filepath.Join(bin, "ehsm"), append(args, key...)...)
		cmd.Dir = s.dir
		cmd.Env = n.g.environ(n.serverSettings("EHSM_DKEYSERVER_DOMAIN=" + dir)...)
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		return out.String(), errs.String(), err
	}
	out, errs, err := init()
	if err != nil || !strings.Contains(out, "0 of 1 signatures") {
		t.Fatalf("init: %v\n%s%s", err, out, errs)
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(out, "domain "), "\n")
	if again, errs, err := init("--key", "alice.key"); err != nil || !strings.Contains(again, id) || !strings.Contains(errs, "was made already") || !strings.Contains(again, "1 of 1 signatures") {
		t.Fatalf("init again: %v\n%s%s", err, again, errs)
	}
	if _, errs, err := init(); err == nil || !strings.Contains(errs, "which has been signed; ehsm-dkeyserver serve") {
		t.Errorf("init of a signed domain: %v\n%s", err, errs)
	}
	printed := n.g.out.size()
	p := spawnFile(t, n.g.out, n.g.environ(n.serverSettings("EHSM_DKEYSERVER_DOMAIN="+dir)...), n.program(partServer), "serve")
	defer p.kill()
	if _, err := p.await(printed, servesRole); err != nil {
		t.Fatal(err)
	}
	out, errs, err = n.operator("status", "--domain", id, "--door", filepath.Join(dir, "door.sock"))
	if err != nil || !strings.Contains(out, "signed by alice") || !strings.Contains(out, "node 1  sim") || !strings.Contains(out, "DomainKey 1") {
		t.Errorf("status: %v\n%s%s", err, out, errs)
	}
}
