package collateral_test

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../attest/dcap/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A recording is a quote of a real machine with what Intel served for it.
type recording struct {
	quote      []byte
	collateral verify.Collateral
	now        time.Time // when all of it was in force
	query      collateral.Query
	status     verify.Status // that verifiers agree on
}

// phala is of a machine with Intel's processor CA.
func phala(t testing.TB) recording {
	t.Helper()
	c, err := verify.DecodeCollateralJSON(read(t, "phala/sgx_quote_collateral.json"))
	if err != nil {
		t.Fatal(err)
	}
	return recording{
		read(t, "phala/sgx_quote"), c, at(t, "2025-06-25T00:00:00Z"),
		collateral.Query{FMSPC: [6]byte{0x00, 0xa0, 0x67, 0x11}, CA: verify.CAProcessor}, verify.ConfigurationAndSWHardeningNeeded,
	}
}

// automata is of a machine with Intel's platform CA.
func automata(t testing.TB) recording {
	t.Helper()
	q, err := hex.DecodeString(strings.TrimSpace(string(read(t, "automata/quotev3.hex"))))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := quote.Parse(q)
	if err != nil {
		t.Fatal(err)
	}
	pck, err := parsed.Certificates()
	if err != nil {
		t.Fatal(err)
	}
	signer := quote.EncodeChain(read(t, "automata/signing.der"), read(t, "automata/root.der"))
	c := verify.Collateral{
		RootCRL: read(t, "automata/intel_root_ca_crl.der"), PCKCRL: read(t, "automata/platform_crl.der"),
		TCBInfoIssuerChain: signer, QEIdentityIssuerChain: signer, PCKCRLIssuerChain: quote.EncodeChain(pck[1:]...),
	}
	if err := errors.Join(c.SetTCBInfo(read(t, "automata/sgx_tcbinfov3_00606a000000.json")), c.SetQEIdentity(read(t, "automata/sgx_qeidentity_v4.json"))); err != nil {
		t.Fatal(err)
	}
	return recording{
		q, c, at(t, "2025-08-20T00:00:00Z"),
		collateral.Query{FMSPC: [6]byte{0x00, 0x60, 0x6a}, CA: verify.CAPlatform}, verify.SWHardeningNeeded,
	}
}

// A fleet makes collateral of its own, for what Intel has not published.
type fleet struct {
	t *testing.T
	*issue.Fleet
	platform verify.Platform
}

func newFleet(t *testing.T, now time.Time) *fleet {
	t.Helper()
	f, err := issue.NewFleet(now.Add(-24 * time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return &fleet{t, f, issue.NewPlatform()}
}

func (f *fleet) query() collateral.Query {
	return collateral.Query{FMSPC: f.platform.FMSPC, CA: verify.CAPlatform}
}

// issue makes collateral that is in force from issued for the time given.
func (f *fleet) issue(evaluation uint32, issued time.Time, valid time.Duration) verify.Collateral {
	f.t.Helper()
	c, err := f.Collateral(issue.Terms{Platform: f.platform, Issued: issued, Next: issued.Add(valid), Evaluation: evaluation})
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// evaluation is the tcbEvaluationDataNumber of TCB info.
func evaluation(t *testing.T, c verify.Collateral) uint32 {
	t.Helper()
	contents, err := c.Contents()
	if err != nil {
		t.Fatal(err)
	}
	return contents.TCBInfo.Evaluation
}
