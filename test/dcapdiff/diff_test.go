//go:build dcapdiff

package dcapdiff

import (
	"bufio"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// A sample is a quote to be judged by both.
type sample struct {
	name       string
	quote      []byte
	collateral verify.Collateral
	root       *x509.Certificate
	at         time.Time
}

// A verdict is a verifier's. An accepted quote has a status.
type verdict struct {
	OK         bool     `json:"ok"`
	Status     string   `json:"status"`
	Advisories []string `json:"advisories"`
	Error      string   `json:"error"`
}

// ours adds to our verification the one check of the other that is policy with
// us: it refuses debug enclaves.
func ours(s sample) (verdict, verify.Step) {
	r, err := verify.Verify(s.quote, s.collateral, verify.Options{Roots: []*x509.Certificate{s.root}, Now: s.at, AllowSim: true})
	var e *verify.Error
	switch {
	case errors.As(err, &e):
		return verdict{Error: err.Error()}, e.Step
	case r.Report.Attributes.Debug():
		return verdict{Error: "debug enclave"}, 0
	}
	return verdict{OK: true, Status: r.Status.String(), Advisories: r.Advisories}, 0
}

// An oracle is the running other verifier.
type oracle struct {
	in  *json.Encoder
	out *bufio.Scanner
}

func startOracle(t *testing.T) *oracle {
	t.Helper()
	modules := os.Getenv("DCAPDIFF_MODULES")
	if modules == "" {
		t.Fatal("DCAPDIFF_MODULES is not set; start run.sh")
	}
	c := exec.Command("node", "oracle.js", modules)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := c.Wait(); err != nil {
			t.Errorf("node: %v", err)
		}
	})
	return &oracle{in: json.NewEncoder(in), out: bufio.NewScanner(out)}
}

func (o *oracle) judge(t *testing.T, s sample) (v verdict) {
	t.Helper()
	c := &s.collateral
	err := o.in.Encode(map[string]any{
		"root": hex.EncodeToString(s.root.Raw), "quote": hex.EncodeToString(s.quote), "now": s.at.Unix(),
		"collateral": map[string]string{
			"pck_crl_issuer_chain":     string(c.PCKCRLIssuerChain),
			"root_ca_crl":              hex.EncodeToString(c.RootCRL),
			"pck_crl":                  hex.EncodeToString(c.PCKCRL),
			"tcb_info_issuer_chain":    string(c.TCBInfoIssuerChain),
			"tcb_info":                 string(c.TCBInfo),
			"tcb_info_signature":       hex.EncodeToString(c.TCBInfoSignature[:]),
			"qe_identity_issuer_chain": string(c.QEIdentityIssuerChain),
			"qe_identity":              string(c.QEIdentity),
			"qe_identity_signature":    hex.EncodeToString(c.QEIdentitySignature[:]),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !o.out.Scan() {
		t.Fatalf("%s: no verdict: %v", s.name, o.out.Err())
	}
	if err := json.Unmarshal(o.out.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// laxer says how ours is laxer than the other, or nothing.
func laxer(ours, other verdict) string {
	if !ours.OK {
		return ""
	}
	if !other.OK {
		return "ours accepts, the other says " + other.Error
	}
	mine, err := verify.ParseStatus(ours.Status)
	if err != nil {
		return err.Error()
	}
	theirs, err := verify.ParseStatus(other.Status)
	if err != nil || mine < theirs { // greater is worse
		return fmt.Sprintf("ours says %s, the other %s", ours.Status, other.Status)
	}
	for _, advisory := range other.Advisories {
		if !slices.Contains(ours.Advisories, advisory) {
			return "ours leaves out " + advisory
		}
	}
	return ""
}

func TestNeverLaxer(t *testing.T) {
	o := startOracle(t)
	var bothAccept, bothRefuse, onlyOther, total int
	stricter := map[verify.Step]int{}
	for _, s := range samples(t) {
		total++
		mine, step := ours(s)
		theirs := o.judge(t, s)
		if how := laxer(mine, theirs); how != "" {
			t.Errorf("%s: %s", s.name, how)
		}
		switch {
		case mine.OK:
			bothAccept++
		case !theirs.OK:
			bothRefuse++
		default:
			onlyOther++
			stricter[step]++
		}
	}
	t.Logf("%d cases: %d accepted by both, %d refused by both, %d refused by ours only", total, bothAccept, bothRefuse, onlyOther)
	for step := verify.StepParse; step <= verify.StepTCBLevel; step++ {
		if stricter[step] > 0 {
			t.Logf("refused by ours only, at %v: %d", step, stricter[step])
		}
	}
	if bothAccept == 0 || bothRefuse == 0 {
		t.Error("one of the verdicts never came, so the comparison shows nothing")
	}
	if total < 500 {
		t.Errorf("%d cases, want at least 500", total)
	}
}
