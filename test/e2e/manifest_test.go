package e2e

import (
	"crypto"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// owned prepares a target with a new domain of settings, whose operator's key the
// test has.
func owned(t *testing.T, s manifest.Settings) (*target, crypto.Signer) {
	t.Helper()
	g := prepare(t, splitUnix)
	for _, name := range []string{"domain", "ehsm.db", "ehsm.db-wal", "ehsm.db-shm", "audit"} {
		if err := os.RemoveAll(g.data(name)); err != nil {
			t.Fatal(err)
		}
	}
	platform, err := sim.Open(g.data("sim"), tee.ProductCore, 1)
	if err != nil {
		t.Fatal(err)
	}
	draft, operator, err := manifest.ThrowAway(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := domainkey.Create(g.data("domain"), platform, draft, time.Now(), operator); err != nil {
		t.Fatal(err)
	}
	return g, operator
}

// TestClosedDomainRefusesEnroll is the second half of line 33, which the core has
// a test of in production mode too, where no platform is simulated: whether
// anyone may enroll is a statement of the domain, not a setting of the host.
func TestClosedDomainRefusesEnroll(t *testing.T) {
	t.Parallel()
	closed := manifest.Defaults(manifest.Development)
	closed.Enrollment = manifest.EnrollmentClosed
	g, _ := owned(t, closed)
	g.start(t)
	g.closed(t)
}

// closed checks that nobody enrolls, and that the service is there.
func (g *target) closed(t *testing.T) {
	t.Helper()
	for _, path := range []string{"/ehsm?Action=Enroll", "/ehsm/?Action=Enroll"} {
		want(t, g.must(t, http.MethodGet, path, nil), 400, "enroll user info failed")
	}
	want(t, g.must(t, http.MethodGet, "/ehsm?Action=GetVersion", nil), 200, textSuccess)
}

// TestManifestOfOperators has a running domain under new settings, which its
// operator signed: they count from the next start on, and nothing is lost.
func TestManifestOfOperators(t *testing.T) {
	t.Parallel()
	g, operator := owned(t, manifest.Defaults(manifest.Development))
	g.start(t)
	c := g.enroll(t)
	key := c.createAES(t)
	g.kill()
	g.follow(t, operator, func(s *manifest.Settings) {
		s.Enrollment, s.DisabledKeySpecs = manifest.EnrollmentClosed, append(s.DisabledKeySpecs, "EH_SM4_CTR")
	})
	g.start(t)
	g.closed(t)
	want(t, c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}), 200, textSuccess)
	want(t, c.call(t, "CreateKey", fields{"keyspec": "EH_SM4_CTR", "origin": internalKey, "keyusage": encryptDecrypt}), 500, "Server exception.")
	want(t, c.call(t, "CreateKey", fields{"keyspec": "EH_SM4_CBC", "origin": internalKey, "keyusage": encryptDecrypt}), 200, textSuccess)
}

// follow has the operator sign the manifest after the genesis. It counts from the next
// start on.
func (g *target) follow(t *testing.T, operator crypto.Signer, change func(*manifest.Settings)) {
	t.Helper()
	genesis, err := os.ReadFile(g.data("domain", manifest.GenesisFile))
	if err != nil {
		t.Fatal(err)
	}
	state, err := manifest.Open(genesis)
	if err != nil {
		t.Fatal(err)
	}
	next, err := state.Follow(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	change(&next.Statement.Settings)
	if err := next.Sign(operator); err != nil {
		t.Fatal(err)
	}
	file, err := next.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.data("domain", manifest.FileName(2)), file, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSealedOnlyDomain has a domain that demands sealed requests from one manifest on:
// ehsm is told, pins the service, and goes on with the credentials that it has.
func TestSealedOnlyDomain(t *testing.T) {
	t.Parallel()
	g, operator := owned(t, manifest.Defaults(manifest.Development))
	g.start(t)
	m := newMiddle(t, g)
	p := func(args ...string) []string { return append(args, "--profile", "sealed") }
	m.must(t, "", p("enroll", "--url", m.URL, "--fingerprint", m.fingerprint())...)
	key := m.must(t, "", p("key", "create")...)
	g.kill()
	g.follow(t, operator, func(s *manifest.Settings) { s.SealedOnly, s.Enrollment = true, manifest.EnrollmentClosed })
	g.start(t)
	g.closed(t)
	for _, args := range [][]string{{"key", "create"}, {"key", "list"}, {"key", "show", key}} {
		_, stderr, ok := m.run(t, "", p(args...)...)
		if ok || !strings.Contains(stderr, "sealed requests only") || !strings.Contains(stderr, "hint: whoever was on the way has read this request") {
			t.Errorf("ehsm %v in clear: ok %v, %s", args, ok, stderr)
		}
	}
	m.pinCore(t)
	for _, args := range [][]string{{"key", "create"}, {"key", "list"}} {
		m.must(t, "", p(args...)...)
	}
	if _, stderr, ok := m.run(t, "", p("key", "list", "--plain")...); ok || !strings.Contains(stderr, "sealed requests only") {
		t.Errorf("ehsm key list --plain: ok %v, %s", ok, stderr)
	}
}
