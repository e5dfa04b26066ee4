package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// An acceptanceBench is a simulated machine on which acceptance runs are made.
type acceptanceBench struct {
	dir string
	env []string
}

func newAcceptanceBench(t *testing.T) *acceptanceBench {
	t.Helper()
	dir, err := os.MkdirTemp("", "ehsm-e2e-*") // short: paths of unix sockets are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	g := &target{dir: dir, out: newOutput(), parts: map[string]*process{}}
	g.launch(t, partTEE)
	t.Cleanup(func() {
		if err := g.stop(partTEE); err != nil {
			t.Errorf("stop the simulated machine: %v", err)
		}
	})
	b := &acceptanceBench{dir: dir, env: g.environ("EHSM_CORE_SIM=" + g.tee())}
	if out, err := b.run("ehsm-simtee", "collateral", "--dir", g.data("sim"), "--out", "collateral.bin"); err != nil {
		t.Fatalf("collateral: %v\n%s", err, out)
	}
	return b
}

// run returns what a program prints on its standard output.
func (b *acceptanceBench) run(name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, name), args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = b.dir, b.env, &stdout, &stderr
	err := cmd.Run()
	return stdout.String() + stderr.String(), err
}

// accept makes a report with the real core on the real simulated machine.
func (b *acceptanceBench) accept(t *testing.T, more ...string) (string, error) {
	t.Helper()
	domain := filepath.Join(b.dir, "domain")
	if err := os.MkdirAll(domain, 0o700); err != nil {
		t.Fatal(err)
	}
	args := []string{"attest", "acceptance", "--domain", domain, "--each", "5ms", "--memory", "8", "--min-ratio", "0.001",
		"--collateral", "collateral.bin", "--root", "root.pem", "--allow-sim"}
	return b.run("ehsm", append(append(args, more...), "--", filepath.Join(bin, "ehsm-core"))...)
}

func TestAcceptance(t *testing.T) {
	t.Parallel()
	b := newAcceptanceBench(t)
	out, err := b.accept(t)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, check := range []string{
		"identity", "randomness", "evidence", "report", "genuine", "same-program", "seal", "seal-after-restart",
		"local-report", "clock", "memory", "throughput",
	} {
		if !passes(out, check) {
			t.Errorf("%s did not pass:\n%s", check, out)
		}
	}
	check := []string{"attest", "acceptance", "--check", "acceptance-report.json", "--root", "root.pem", "--allow-sim", "--min-ratio", "0.001"}
	if out, err := b.run("ehsm", check...); err != nil || !passes(out, "genuine") {
		t.Errorf("check: %v\n%s", err, out)
	}
	if out, err := b.run("ehsm", "attest", "acceptance", "--check", "acceptance-report.json"); err == nil || !strings.Contains(out, "not accepted: genuine, hardware") {
		t.Errorf("check without --allow-sim: %v\n%s", err, out)
	}
	b.wholeReport(t)
	b.changedReports(t, check)
	b.measurement(t)
}

func passes(out, check string) bool {
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "PASS" && fields[1] == check {
			return true
		}
	}
	return false
}

func (b *acceptanceBench) report(t *testing.T) map[string]any {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.dir, "acceptance-report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r map[string]any
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// wholeReport looks for what a stranger needs to repeat the run.
func (b *acceptanceBench) wholeReport(t *testing.T) {
	t.Helper()
	host := b.report(t)["host"].(map[string]any)
	for _, member := range []string{"command", "kernel", "processorModel", "devices", "coreLog", "throughputOutside", "collateral"} {
		if v := host[member]; v == nil || v == "" {
			t.Errorf("the report has no %s: %v", member, v)
		}
	}
}

// changedReports changes each part of the report, and must be refused each time.
func (b *acceptanceBench) changedReports(t *testing.T, check []string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.dir, "acceptance-report.json"))
	if err != nil {
		t.Fatal(err)
	}
	check[3] = "changed.json"
	for _, row := range [][2]string{
		{`"outcome": "pass"`, `"outcome": "fail"`},
		{`"svn": 1`, `"svn": 2`},
		{`"debug": false`, `"debug": true`},
		{`"processorModel": "`, `"processorModel": "x`},
		{`"operation": "p256-sign"`, `"operation": "p256-sing"`},
		{`"nonce": "`, `"nonce": "00`},
	} {
		changed := strings.Replace(string(raw), row[0], row[1], 1)
		if changed == string(raw) {
			t.Errorf("the report has no %s", row[0])
		}
		if err := os.WriteFile(filepath.Join(b.dir, "changed.json"), []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := b.run("ehsm", check...); err == nil {
			t.Errorf("%s: accepted:\n%s", row[1], out)
		}
	}
}

// measurement compares the report with what `ehsm-simtee measure` publishes.
func (b *acceptanceBench) measurement(t *testing.T) {
	t.Helper()
	result := b.report(t)["secondRun"].(map[string]any)["result"].(map[string]any)
	measured := result["platform"].(map[string]any)["measurement"].(string)
	out, err := b.run("ehsm-simtee", "measure", filepath.Join(bin, "ehsm-core"))
	if err != nil || len(measured) != 64 || !strings.Contains(out, measured) {
		t.Errorf("the report says %s, ehsm-simtee measure says %s, %v", measured, out, err)
	}
}

// TestAcceptanceOfAServingMachine: a domain in service is neither disturbed from
// outside nor opened by a run.
func TestAcceptanceOfAServingMachine(t *testing.T) {
	t.Parallel()
	b := newAcceptanceBench(t)
	domain := filepath.Join(b.dir, "domain")
	if err := os.MkdirAll(domain, 0o700); err != nil {
		t.Fatal(err)
	}
	genesis := filepath.Join(domain, "genesis.json")
	if err := os.WriteFile(genesis, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := b.accept(t); err == nil || !strings.Contains(out, "is not empty: it has genesis.json") {
		t.Errorf("got %v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(domain, "acceptance.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.env = append(b.env, "EHSM_CORE_DOMAIN="+domain)
	if out, err := b.run("ehsm-core"); err == nil || !strings.Contains(out, "in the directory of a domain") {
		t.Errorf("the core: got %v\n%s", err, out)
	}
}
