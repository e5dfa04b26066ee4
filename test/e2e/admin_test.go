package e2e

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// newAdministrator makes a person and the file of its key.
func newAdministrator(t testing.TB, path, name string) manifest.Person {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("ehsm-administrator-secret-v1 %s %s\n", name, base64.StdEncoding.EncodeToString(private.Seed()))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return manifest.Person{Name: name, Key: public}
}

// administrator is the file with the key of the site's first administrator.
func (s *site) administrator() string { return filepath.Join(s.dir, "administrator.key") }

// knows are the flags by which the command line knows a node and its core.
func (n *node) knows(t testing.TB) []string {
	t.Helper()
	signer := n.site.signer(t, n.bin)
	return []string{
		"--url", n.g.base(), "--ca-file", n.g.data("tls", "cert.pem"), "--domain", n.site.domain, "--allow-sim",
		"--measurement", fmt.Sprintf("%x:1:1", signer[:]), "--collateral", n.path("collateral.bin"),
	}
}

// ehsm runs the command line at a node, with profiles in a directory of their own.
func (n *node) ehsm(config, input string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(bin, "ehsm"), args...)
	cmd.Env, cmd.Stdin = n.g.environ("XDG_CONFIG_HOME="+config), strings.NewReader(input)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("ehsm %s: %w: %s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// admin has an administrator ask at a node.
func (n *node) admin(t *testing.T, key string, args ...string) (string, error) {
	t.Helper()
	return n.ehsm(t.TempDir(), "", append(append([]string{"admin"}, args...), append(n.knows(t), "--key", key)...)...)
}

func (n *node) mustAdmin(t *testing.T, key string, args ...string) string {
	t.Helper()
	out, err := n.admin(t, key, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestEnrollSite has three nodes, and one token used at all of them at once: there is
// exactly one app. Then a host who has the database puts rows back, edits them and
// leaves them out, with every core restarted: nobody is an administrator, no token is
// good and no app is back but those that were.
func TestEnrollSite(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3, nil)
	for i, n := range s.machines {
		if i == 0 {
			n.start(t, partServer)
		}
		n.start(t, partCache)
		n.g.start(t)
	}
	one, frank, grace := s.machines[0], s.administrator(), filepath.Join(s.dir, "grace.key")
	public := filepath.Join(s.dir, "grace.key.pub")
	person := newAdministrator(t, grace, "grace")
	line := fmt.Sprintf("ehsm-administrator-v1 grace %s\n", base64.StdEncoding.EncodeToString(person.Key))
	if err := os.WriteFile(public, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	s.enrollAtOnce(t)
	s.refusedPlatform(t)

	// What is narrowed here stays so.
	alice, bob := one.g.enroll(t), one.g.enroll(t)
	bob.createSecret(t, "secret", "value", nil)
	key := alice.createAES(t)
	token := one.mustAdmin(t, frank, "tokens", "create")
	id := regexp.MustCompile(`"tokenid":"([^"]*)","name":"","role":"owner","uses":1,"used":0`).FindStringSubmatch(one.mustAdmin(t, frank, "tokens", "list"))
	first := regexp.MustCompile(`"id":"([^"]*)","name":"frank"`).FindStringSubmatch(one.mustAdmin(t, frank, "admins", "list"))
	if id == nil || first == nil {
		t.Fatalf("got %v, %v", id, first)
	}
	one.mustAdmin(t, frank, "admins", "add", public)
	r := s.rollback(t)
	r.exec(t, "CREATE TABLE before AS TABLE records")
	one.mustAdmin(t, grace, "tokens", "revoke", id[1])
	one.mustAdmin(t, grace, "apps", "disable", alice.appid)
	one.mustAdmin(t, grace, "apps", "delete", bob.appid)
	one.mustAdmin(t, grace, "admins", "remove", first[1])
	eventually(t, "the secret to be gone", func() bool {
		var n int
		err := r.db.QueryRow(t.Context(), "SELECT count(*) FROM records WHERE tenant = $1 AND type = 6", bob.appid).Scan(&n)
		return err == nil && n == 0
	})
	one.anchored(t, 6)
	r.exec(t, "CREATE TABLE after AS TABLE records")
	domain := "tenant = '00000000-0000-0000-0000-000000000000' AND type = 1"
	for _, row := range []struct {
		name string
		do   []string
	}{
		{"rows of before", []string{"DELETE FROM records", "INSERT INTO records SELECT * FROM before"}},
		{"no row of administrators", []string{"DELETE FROM records WHERE " + domain}},
		{"an older row of administrators, with the number of the last", []string{
			"UPDATE records SET sealed = (SELECT sealed FROM before WHERE " + domain + ") WHERE " + domain}},
		{"an app's row for that of administrators", []string{
			"UPDATE records SET sealed = (SELECT sealed FROM before WHERE tenant = '" + alice.appid + "' AND type = 1) WHERE " + domain}},
	} {
		r.takeBack(t, "after")
		r.exec(t, row.do...)
		for _, n := range s.machines {
			n.restart(t)
		}
		for i, n := range s.machines {
			n.ready(t)
			if i == 2 && row.name != "rows of before" {
				continue // two will do
			}
			if out, err := n.admin(t, frank, "apps", "list"); err == nil {
				t.Errorf("%s: a removed administrator is told %s", row.name, out)
			}
			refuses(t, alice.on(n.g), row.name+": a disabled app", key)
			if reply := bob.on(n.g).call(t, "GetSecretValue", fields{"secretName": "secret"}); reply.Code == 200 {
				t.Errorf("%s: a deleted app has its secret", row.name)
			}
		}
		if out, err := one.enrolls(t, token); err == nil {
			t.Errorf("%s: a revoked token makes %s", row.name, out)
		}
	}
	r.takeBack(t, "after")
	if out := one.mustAdmin(t, grace, "apps", "list"); strings.Contains(out, bob.appid) || !strings.Contains(out, alice.appid) {
		t.Errorf("got %s", out)
	}
	one.mustAdmin(t, grace, "apps", "enable", alice.appid)
	opens(t, alice, key, sealedBy(t, alice, key))
}

// enrolls enrolls at a node with a token and returns the appid.
func (n *node) enrolls(t *testing.T, token string) (string, error) {
	t.Helper()
	return n.ehsm(t.TempDir(), token, append([]string{"enroll", "--token", "-"}, n.knows(t)...)...)
}

// enrollAtOnce uses one token at all nodes at once.
func (s *site) enrollAtOnce(t *testing.T) {
	t.Helper()
	one, frank := s.machines[0], s.administrator()
	token := one.mustAdmin(t, frank, "tokens", "create", "--tenant", "once")
	var wg sync.WaitGroup
	apps, refusals := make(chan string, 6), make(chan error, 6)
	for i := range cap(apps) {
		n := s.machines[i%len(s.machines)]
		config, flags := t.TempDir(), n.knows(t)
		wg.Go(func() {
			app, err := n.ehsm(config, token, append([]string{"enroll", "--token", "-"}, flags...)...)
			if err == nil {
				_, err = n.ehsm(config, "", "key", "create") // sealed, from the profile
			}
			if err != nil {
				refusals <- err
				return
			}
			apps <- app
		})
	}
	wg.Wait()
	close(refusals)
	if len(apps) != 1 {
		t.Errorf("a token of one use made %d apps", len(apps))
	}
	for err := range refusals {
		if !strings.Contains(err.Error(), "enroll user info failed") {
			t.Error(err)
		}
	}
	for _, n := range s.machines {
		if out := n.mustAdmin(t, frank, "apps", "list"); strings.Count(out, `"appid"`) != 1 || !strings.Contains(out, `"name":"once"`) {
			t.Errorf("got %s", out)
		}
	}
}

// refusedPlatform has a machine be out of date: nobody enrolls there.
func (s *site) refusedPlatform(t *testing.T) {
	t.Helper()
	n := s.machines[0]
	token := n.mustAdmin(t, s.administrator(), "tokens", "create", "--tenant", "late")
	n.collate(t, func(x *issue.Terms) {
		x.Status, x.NewerDate = verify.OutOfDate, time.Now().Add(-24*time.Hour)
	})
	if out, err := n.enrolls(t, token); err == nil || !strings.Contains(err.Error(), "not wanted: policy: TCB status is not accepted: OutOfDate") {
		t.Errorf("out of date: got %s, %v", out, err)
	}
	n.collate(t, func(*issue.Terms) {})
	if _, err := n.enrolls(t, token); err != nil {
		t.Error(err)
	}
}

// TestRekeyed has custodians give an app another owner, past a man in the middle. He sees
// no approval, of which one is not enough.
func TestRekeyed(t *testing.T) {
	t.Parallel()
	m := newMiddle(t, newTarget(t, splitUnix))
	e := m.enrolling(t)
	if stderr, ok := e.enroll(t, e.token(t, "--tenant", "shop"), "shop"); !ok {
		t.Fatal(stderr)
	}
	shop := func(args ...string) []string { return append([]string{"--profile", "shop"}, args...) }
	key := m.must(t, "", shop("key", "create")...)
	app := regexp.MustCompile(`"appid":"([^"]*)","name":"shop"`).FindStringSubmatch(m.must(t, "", append([]string{"admin", "apps", "list"}, e.admin...)...))
	public, request := filepath.Join(e.dir, "own.pub"), filepath.Join(e.dir, "rekey.json")
	if out, err := exec.Command("sh", "-c", "openssl genpkey -algorithm ed25519 | openssl pkey -pubout -out "+public).CombinedOutput(); err != nil || app == nil {
		t.Fatalf("%v: %s", err, out)
	}
	m.must(t, "", append([]string{"admin", "apps", "rekey", "prepare", app[1], "--public", public, "--out", request}, e.admin...)...)
	var approvals []string
	for i := range 2 {
		line := m.must(t, "", "domain", "custodian", "rekey", request, "--yes", "--domain", e.domain, "--key", m.g.data(fmt.Sprintf("custodian-%d.key", i+1)))
		approvals = append(approvals, e.file(t, fmt.Sprint("approval-", i), line))
		secret, err := base64.StdEncoding.DecodeString(strings.Fields(line)[2])
		if err != nil {
			t.Fatal(err)
		}
		defer m.hides(t, "approval of a custodian", secret)
	}
	finish := append([]string{"admin", "apps", "rekey", "finish", request}, e.admin...)
	for _, given := range [][]string{approvals[:1], {approvals[1], approvals[1]}} {
		if _, stderr, ok := m.run(t, "", append(finish, given...)...); ok || !strings.Contains(stderr, "rekey error") {
			t.Errorf("%d approvals: got %v, %s", len(given), ok, stderr)
		}
	}
	if got := m.must(t, "", shop("key", "list")...); !strings.Contains(got, key) {
		t.Errorf("got %s", got)
	}
	m.must(t, "", append(finish, approvals...)...)
	if _, stderr, ok := m.run(t, "", shop("key", "list")...); ok || !strings.Contains(stderr, "sign error") {
		t.Errorf("the lost API key: got %v, %s", ok, stderr)
	}
	if got := m.must(t, "", append([]string{"admin", "apps", "list"}, e.admin...)...); !strings.Contains(got, fmt.Sprintf(`"appid":%q,"name":"shop","state":"active","exposed":false,"credentials":1`, app[1])) {
		t.Errorf("got %s", got)
	}
}
