package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
	judging "github.com/ehsm-kms/ehsm/internal/attest/acceptance/judge"
	"github.com/ehsm-kms/ehsm/internal/attest/acceptance/speed"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	sgx "github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
)

// acceptancePlatform makes, in a script's directory, the simulated machine that
// fakeCore runs on: machine.pem, root.pem, collateral and a policy for it.
func acceptancePlatform(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: acceptmachine")
	}
	m := &maker{ts: ts, dir: ts.MkAbs(".")}
	now := time.Now().Add(-time.Hour)
	fleet, err := issue.NewFleet(now)
	ts.Check(err)
	p := issue.NewPlatform()
	machine, err := fleet.NewMachine(p, now)
	ts.Check(err)
	stored, err := machine.Marshal()
	ts.Check(err)
	c, err := fleet.Collateral(issue.Terms{Platform: p, Issued: now, Next: now.Add(24 * time.Hour), Evaluation: 20})
	ts.Check(err)
	m.write("machine.pem", stored)
	m.write("root.pem", sgx.EncodeChain(fleet.Root.Cert.Raw))
	m.bundles("collateral", c)
	m.write("policy.json", fmt.Appendf(nil, `{"format":"ehsm-sgx-policy/v1","enclaves":[{"name":"core","mrsigner":"%x","isvprodid":1,"min_isvsvn":1}],"platforms":[{"name":"here","ppid":"%x"}],"allow_sim":true}`,
		bytes.Repeat([]byte{0xbb}, 32), p.PPID))
}

// reword replaces a text in a file once.
func reword(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: reword FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], args[2], 1)), 0o600))
}

// fakeCore stands in for ehsm-core, which this program may not link, on the
// machine in the file of its argument. A second argument spoils what it does.
func fakeCore() {
	spoil := strings.Join(os.Args[2:], " ")
	if spoil == "hangs" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		<-ctx.Done()
		os.Exit(1)
	}
	if spoil == "no platform" {
		fmt.Fprintln(os.Stderr, "ehsm-core: trusted execution environment not found: \x1b[31mno device")
		os.Exit(1)
	}
	if err := fakeRun(os.Args[1], spoil); err != nil {
		fmt.Fprintln(os.Stderr, "ehsm-core:", err)
		os.Exit(1)
	}
}

func fakeRun(machineFile, spoil string) error {
	raw, err := os.ReadFile(filepath.Join(os.Getenv("EHSM_CORE_DOMAIN"), acceptance.RequestFile))
	if err != nil {
		return err
	}
	q, err := acceptance.DecodeRequest(raw)
	if err != nil {
		return err
	}
	stored, err := os.ReadFile(machineFile)
	if err != nil {
		return err
	}
	machine, err := issue.ParseMachine(stored)
	if err != nil {
		return err
	}
	s, err := acceptance.State(context.Background(), fakeResult(q, spoil), fakeAttester{machine})
	if err != nil {
		return err
	}
	fmt.Println("[run-time] loading enclave") // as run-times do
	switch spoil {
	case "silent":
		return nil
	case "cut":
		fmt.Printf("%s\n", s.Encode()[:1000])
		return nil
	case "forged":
		fmt.Printf("%s\n", bytes.Replace(s.Encode(), []byte(`"debug":true`), []byte(`"debug":false`), 1))
		return nil
	case "complains":
		fmt.Printf("%s\n", s.Encode())
		return fmt.Errorf("could not close something")
	}
	fmt.Printf("%s\n", s.Encode())
	return nil
}

type fakeAttester struct{ machine *issue.Machine }

func (f fakeAttester) Evidence(_ context.Context, data [64]byte) (attest.Evidence, error) {
	q, err := f.machine.Quote(sgx.Report{
		Attributes: sgx.Attributes{Flags: sgx.FlagInit | sgx.FlagMode64, XFRM: 7}, MREnclave: [32]byte(bytes.Repeat([]byte{0xaa}, 32)),
		MRSigner: [32]byte(bytes.Repeat([]byte{0xbb}, 32)), ISVProdID: 1, ISVSVN: 1, ReportData: data,
	})
	return attest.Evidence{Kind: attest.SGXQuote3, Quote: q}, err
}

func fakeResult(q *acceptance.Request, spoil string) acceptance.Result {
	r := acceptance.Result{
		Nonce: q.Nonce, Version: "fake", Go: "go", Processors: 1, Started: time.Now().UTC(), Finished: time.Now().UTC(),
		Platform: acceptance.Platform{
			Name: "sim", Simulated: true, Measurement: bytes.Repeat([]byte{0xaa}, 32), Signer: bytes.Repeat([]byte{0xbb}, 32), Product: 1, SVN: 1,
			Debug: spoil == "forged",
		},
	}
	names := []acceptance.Name{
		acceptance.Identity, acceptance.Randomness, acceptance.Evidence, acceptance.SealKeys, acceptance.LocalReport,
		acceptance.Clock, acceptance.Memory, acceptance.Throughput, acceptance.Restart,
	}
	for _, name := range names {
		outcome := acceptance.Pass
		if spoil == "fails "+string(name) {
			outcome = acceptance.Fail
		}
		r.Checks = append(r.Checks, acceptance.NewCheck(name, outcome, "\x1b[31mred"))
	}
	if len(q.Seals) == 0 {
		id := make([]byte, 32)
		rand.Read(id)
		r.Seals = []acceptance.Seal{{Policy: 1, SVN: 1, KeyID: id}}
	}
	for _, s := range q.Seals {
		r.Opened = append(r.Opened, s.KeyID)
	}
	for _, name := range speed.Names() {
		r.Throughput = append(r.Throughput, speed.Rate{Operation: name, Threads: 1, PerSecond: 1 << 40})
	}
	return r
}

func TestFacts(t *testing.T) {
	h := fakeMachine(t, map[string]string{
		"/proc/cpuinfo":                  "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) 8380\nmicrocode\t: 0xd0003a5\nflags\t\t: fpu sgx rdrand rdseed hypervisor\n\nmodel name\t: other\n",
		"/proc/sys/kernel/osrelease":     "6.9.1-test\n",
		"/sys/class/dmi/id/sys_vendor":   "Vendor\n",
		"/sys/class/dmi/id/product_name": "R\x1b[750\n",
		"/sys/class/dmi/id/bios_version": "1.2\n",
		judging.SGXEnclave:               "", judging.TSM + "/x": "",
	}).facts()
	for name, row := range map[string][2]string{
		"vendor": {h.Vendor, "GenuineIntel"}, "model": {h.Model, "Intel(R) Xeon(R) 8380"}, "microcode": {h.Microcode, "0xd0003a5"},
		"kernel": {h.Kernel, "6.9.1-test"}, "product": {h.Product, "Vendor R?[750"}, "BIOS": {h.BIOS, "1.2"},
		"flags": {strings.Join(h.Flags, " "), "sgx rdrand rdseed hypervisor"},
	} {
		if row[0] != row[1] {
			t.Errorf("%s: got %q, want %q", name, row[0], row[1])
		}
	}
	for _, path := range []string{judging.SGXEnclave, judging.TSM} {
		if !h.Has(path) {
			t.Errorf("%s is not usable: %+v", path, h.Devices)
		}
	}
	if h.Has(judging.SGXProvision) || h.Has(judging.TPM) || len(h.Devices) != 6 {
		t.Errorf("devices out of nothing: %+v", h.Devices)
	}
	empty := machine{t.TempDir()}.facts()
	if b, err := json.Marshal(empty); err != nil || empty.Model != "" || empty.Flags == nil || strings.Contains(string(b), "usable") {
		t.Errorf("an empty machine: %s, %v", b, err)
	}
}

// TestInterruptedRun: the user's interrupt is no failure of the core, and leaves no
// request behind.
func TestInterruptedRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	core := acceptedCore{command: []string{"sleep", "60"}, domain: t.TempDir(), timeout: time.Minute}
	_, _, err := core.run(ctx, &acceptance.Request{})
	if !errors.Is(err, context.Canceled) || errors.Is(err, errCore) {
		t.Errorf("run: got %v, want Canceled", err)
	}
	if left, err := os.ReadDir(core.domain); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestEnding(t *testing.T) {
	e := &ending{limit: 4}
	for _, s := range []string{"ab", "cdefgh", "i"} {
		if n, err := e.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("Write: got %d, %v", n, err)
		}
	}
	if string(e.kept) != "fghi" {
		t.Errorf("got %q", e.kept)
	}
}

// Whatever a core prints, it is a statement or an error.
func FuzzStatementIn(f *testing.F) {
	f.Add([]byte("x\n{\"format\":\"" + acceptance.StatementFormat + "\"}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := statementIn(b); (s == nil) == (err == nil) {
			t.Errorf("got %v, %v", s, err)
		}
	})
}
