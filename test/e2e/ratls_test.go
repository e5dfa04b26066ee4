package e2e

import (
	"crypto/tls"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/client/ehsm/attested"
)

// wholeNode prepares a simulated node whose manager and core say that they share a TEE.
func wholeNode(t *testing.T) *target {
	g := prepare(t, splitUnix)
	g.settings = []string{"EHSM_KMS_TLS_ATTESTED=yes", "EHSM_KMS_TLS_CERT=", "EHSM_KMS_TLS_KEY="}
	g.tls = &tls.Config{InsecureSkipVerify: true} // for what the tests ask of it beside
	g.http = &http.Client{Transport: &http.Transport{TLSClientConfig: g.tls}}
	t.Cleanup(g.http.CloseIdleConnections)
	return g
}

// TestWholeNode has a client verify a node in the handshake, before it sends anything, and
// a man in the middle refused there.
func TestWholeNode(t *testing.T) {
	t.Parallel()
	g := wholeNode(t)
	g.coreAlso = []string{"EHSM_CORE_WHOLE_NODE=yes"}
	g.start(t)
	m := newMiddle(t, g)
	screen := m.must(t, "", "attest", "verify", "--tls", g.base(), "--allow-sim")
	domain := regexp.MustCompile(`(?m)^domain: +([0-9a-f]{64})`).FindStringSubmatch(screen)
	policy := regexp.MustCompile(`(?m)^\{.*$`).FindString(screen)
	if domain == nil || policy == "" || !strings.Contains(screen, "genuine:           yes (simulated") {
		t.Fatalf("attest verify --tls prints %s", screen)
	}
	m.must(t, policy, "attest", "verify", "--tls", g.base(), "--domain", domain[1], "--policy", "-")
	for _, row := range []struct {
		name, url, domain, policy, want string
	}{
		{"simulation without leave", g.base(), domain[1], "", "simulated platform"},
		{"another domain", g.base(), strings.Repeat("ab", 32), policy, "service is of another domain"},
		{"another program", g.base(), domain[1], otherEnclave(policy), "not wanted"},
		{"man in the middle", m.URL, domain[1], policy, "service shows no evidence"},
	} {
		args := []string{"attest", "verify", "--tls", row.url, "--domain", row.domain}
		if row.policy != "" {
			args = append(args, "--policy", "-")
		}
		if _, stderr, ok := m.run(t, row.policy, args...); ok || !strings.Contains(stderr, row.want) {
			t.Errorf("%s: ok %v, %s, want %q", row.name, ok, stderr, row.want)
		}
	}
	v := &attested.Verifier{AllowSim: true}
	var err error
	if v.Policy, err = attested.ParsePolicy([]byte(policy)); err != nil {
		t.Fatal(err)
	}
	if v.Domain, err = attested.ParseDomain(domain[1]); err != nil {
		t.Fatal(err)
	}
	resp, err := g.http.Get(g.base() + "/attestation/collateral")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if v.Collateral, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	c, err := ehsm.New(ehsm.Config{URL: g.base(), VerifyConnection: v.VerifyConnection})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Enroll(t.Context()); err != nil {
		t.Errorf("enroll over a connection that was verified: %v", err)
	}
}

// otherEnclave is a policy for another program.
func otherEnclave(policy string) string {
	return regexp.MustCompile(`"mrenclave":"[0-9a-f]{64}"`).ReplaceAllString(policy, `"mrenclave":"`+strings.Repeat("ab", 32)+`"`)
}

// TestNoWholeNode has a manager end whose core was not told that they share a TEE, as
// wherever the host has the manager.
func TestNoWholeNode(t *testing.T) {
	t.Parallel()
	g := wholeNode(t)
	g.launch(t, partTEE)
	g.launch(t, partCore)
	g.startManager(t)
	<-g.parts[partKMS].exited
	said, _ := g.out.after(0)
	const want = "EHSM_KMS_TLS_ATTESTED: have the core vouch for a TLS key: "
	if text := string(said); !strings.Contains(text, want) || !strings.Contains(text, "the manager is not in the TEE of the core") {
		t.Errorf("ehsm-kms ended with %s", text)
	}
	delete(g.parts, partKMS)
}
