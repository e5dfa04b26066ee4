package core

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// dcapVector reads a file of the vectors of package dcap, whose sources are
// beside them.
func dcapVector(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../attest/dcap/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, ".hex") {
		if b, err = hex.DecodeString(strings.TrimSpace(string(b))); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func phala(t testing.TB) verify.Collateral {
	t.Helper()
	c, err := verify.DecodeCollateralJSON(dcapVector(t, "phala/sgx_quote_collateral.json"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func automata(t testing.TB) verify.Collateral {
	t.Helper()
	chain := quote.EncodeChain(dcapVector(t, "automata/signing.der"), dcapVector(t, "automata/root.der"))
	c := verify.Collateral{
		RootCRL: dcapVector(t, "automata/intel_root_ca_crl.der"), PCKCRL: dcapVector(t, "automata/platform_crl.der"),
		TCBInfoIssuerChain: chain, QEIdentityIssuerChain: chain,
	}
	if err := errors.Join(c.SetTCBInfo(dcapVector(t, "automata/sgx_tcbinfov3_00606a000000.json")),
		c.SetQEIdentity(dcapVector(t, "automata/sgx_qeidentity_v4.json"))); err != nil {
		t.Fatal(err)
	}
	return c
}

// accepts makes a manifest accept a status for advisories.
func accepts(status string, advisories ...string) (list []genesis.Acceptance) {
	for _, id := range advisories {
		list = append(list, genesis.Acceptance{Status: status, Advisory: id, Reason: "test"})
	}
	return list
}

// TestIntelQuotes has quotes of Intel's machines judged on a day on which their
// collateral was in force: genuine ones are accepted exactly where the manifest
// accepts their status, for all its causes.
func TestIntelQuotes(t *testing.T) {
	june, august := time.Date(2025, 6, 25, 0, 0, 0, 0, time.UTC), time.Date(2025, 8, 20, 0, 0, 0, 0, time.UTC)
	const both, hardening, outdated = "ConfigurationAndSWHardeningNeeded", "SWHardeningNeeded", "OutOfDate"
	least := map[string]uint32{"least number": 17, "a higher number": 18}
	d := newDomainAt(t, time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC))
	for name, row := range map[string]struct {
		quote      string
		collateral verify.Collateral
		now        time.Time
		accept     []genesis.Acceptance
		code       int
		status     float64
		enclave    string // first digits
		reason     string
	}{
		"phala":             {"phala/sgx_quote", phala(t), june, accepts(both, "INTEL-SA-00289", "INTEL-SA-00615"), 200, 0xa008, "33d8736d", "ok"},
		"phala, one cause":  {"phala/sgx_quote", phala(t), june, accepts(both, "INTEL-SA-00289"), 500, 0, "", "TCB status is not accepted"},
		"phala, by default": {"phala/sgx_quote", phala(t), june, nil, 500, 0, "", "TCB status is not accepted"},
		"phala, other status": {"phala/sgx_quote", phala(t), june, accepts(hardening, "INTEL-SA-00289", "INTEL-SA-00615"), 500, 0, "",
			"TCB status is not accepted"},
		"phala, a month late":  {"phala/sgx_quote", phala(t), june.AddDate(0, 1, 0), accepts(both, "INTEL-SA-00289", "INTEL-SA-00615"), 500, 0, "", "quote is not genuine: crl"},
		"phala, other machine": {"phala/sgx_quote", automata(t), august, accepts(both, "INTEL-SA-00289", "INTEL-SA-00615"), 500, 0, "", "quote is not genuine: crl"},
		"automata":             {"automata/quotev3.hex", automata(t), august, accepts(hardening, "INTEL-SA-00615"), 200, 0xa007, "a4f45c39", "ok"},
		"automata, by default": {"automata/quotev3.hex", automata(t), august, nil, 500, 0, "", "TCB status is not accepted"},
		"oasis": {"oasis/quote_v3_ecdsa_p256_pck_chain.bin", automata(t), august, accepts(outdated, "INTEL-SA-00615", "INTEL-SA-00657",
			"INTEL-SA-00730", "INTEL-SA-00738", "INTEL-SA-00767", "INTEL-SA-00828", "INTEL-SA-00837", "INTEL-SA-00960"), 200, 0xa002, "68823bc6", "ok"},
		"debug enclave":   {"automata/quote_sgx.bin", phala(t), june, accepts(both, "INTEL-SA-00289", "INTEL-SA-00615"), 500, 0, "", "quote of a debug enclave"},
		"encrypted PPID":  {"oasis/quote_v3_ecdsa_p256_eppid.bin", phala(t), june, nil, 500, 0, "", "quote is malformed"},
		"Intel's sample":  {"intel-sample/quote.dat", phala(t), june, nil, 500, 0, "", "quote is malformed"},
		"TDX v4":          {"phala/tdx_quote", phala(t), june, nil, 500, 0, "", "TDX quote: not built in"},
		"TDX v5":          {"automata/quotev5.dat", phala(t), june, nil, 500, 0, "", "TDX quote: not built in"},
		"least number":    {"automata/quotev3.hex", automata(t), august, accepts(hardening, "INTEL-SA-00615"), 200, 0xa007, "a4f45c39", "ok"},
		"a higher number": {"automata/quotev3.hex", automata(t), august, accepts(hardening, "INTEL-SA-00615"), 500, 0, "", "quote is not genuine: tcb-info"},
	} {
		d.settings.Accept, d.settings.MinEvaluation = row.accept, least[name]
		h := d.hostAt(t, Limits{}, row.now)
		h.serves(row.collateral)
		c := h.enroll()
		q := dcapVector(t, row.quote)
		r := c.do(0, "VerifyQuote", verifying(q))
		status, _ := r.Result["tcbStatus"].(float64)
		if r.Code != row.code || status != row.status || !strings.HasPrefix(r.text("mr_enclave"), row.enclave) {
			t.Errorf("%s: got %d %v", name, r.Code, r.Result)
		}
		if got := reasons(t, h); got[len(got)-1][len("VerifyQuote 500 "):] != row.reason {
			t.Errorf("%s: the trail has %q, want %q", name, got[len(got)-1], row.reason)
		}
		if r.Code == 200 && r.text("sign") != signedVerdict(c, r) {
			t.Errorf("%s: the signature does not verify", name)
		}
	}
}

// FuzzJudge has hostile quotes and collateral judged. Nothing but the quote that is
// known to be genuine is accepted.
func FuzzJudge(f *testing.F) {
	judge, err := newJudge(&manifest.Settings{TrustRoots: []string{manifest.IntelSGX}, Accept: accepts("SWHardeningNeeded", "INTEL-SA-00615")}, newFloors(16))
	if err != nil {
		f.Fatal(err)
	}
	now := time.Date(2025, 8, 20, 0, 0, 0, 0, time.UTC)
	stated := automata(f)
	genuine := dcapVector(f, "automata/quotev3.hex")
	f.Add(genuine, stated.Append(nil))
	f.Add(dcapVector(f, "phala/tdx_quote"), []byte{})
	f.Fuzz(func(t *testing.T, q, collateral []byte) {
		if _, err := verify.QueryOf(q); err != nil {
			malformed(q, err)
			return
		}
		c, err := verify.DecodeCollateral(collateral)
		if err != nil {
			return
		}
		r, err := judge.verify(q, c, now)
		if err == nil && !bytes.Equal(r.Report.MREnclave[:4], []byte{0xa4, 0xf4, 0x5c, 0x39}) {
			t.Errorf("a quote of enclave %x is accepted", r.Report.MREnclave)
		}
	})
}
