package verify_test

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readHex(t testing.TB, name string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.TrimSpace(string(read(t, name))))
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

func phalaCollateral(t testing.TB) verify.Collateral {
	t.Helper()
	c, err := verify.DecodeCollateralJSON(read(t, "phala/sgx_quote_collateral.json"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func automataCollateral(t testing.TB) verify.Collateral {
	t.Helper()
	chain := quote.EncodeChain(read(t, "automata/signing.der"), read(t, "automata/root.der"))
	c := verify.Collateral{
		RootCRL:               read(t, "automata/intel_root_ca_crl.der"),
		PCKCRL:                read(t, "automata/platform_crl.der"),
		TCBInfoIssuerChain:    chain,
		QEIdentityIssuerChain: chain,
	}
	if err := errors.Join(
		c.SetTCBInfo(read(t, "automata/sgx_tcbinfov3_00606a000000.json")),
		c.SetQEIdentity(read(t, "automata/sgx_qeidentity_v4.json")),
	); err != nil {
		t.Fatal(err)
	}
	return c
}

func oasisCollateral(t testing.TB, chain string) verify.Collateral {
	t.Helper()
	c := verify.Collateral{TCBInfoIssuerChain: read(t, chain), QEIdentityIssuerChain: read(t, chain)}
	if err := errors.Join(
		c.SetTCBInfo(read(t, "oasis/tcb_info_v3_fmspc_00606A000000.json")),
		c.SetQEIdentity(read(t, "oasis/qe_identity_v2.json")),
	); err != nil {
		t.Fatal(err)
	}
	return c
}

func intel(at time.Time) verify.Options {
	return verify.Options{Roots: []*x509.Certificate{verify.IntelRoot()}, Now: at}
}

// genuine is one of Intel's quotes with what it must yield.
type genuine struct {
	name       string
	quote      []byte
	collateral verify.Collateral
	at         time.Time // inside the window
	from, to   time.Time // the window

	status     verify.Status
	advisories []string
	fmspc      string
	evaluation uint32
	enclave    string
	signer     string
	debug      bool
}

func genuineQuotes(t testing.TB) []genuine {
	t.Helper()
	phala, automata := phalaCollateral(t), automataCollateral(t)
	june, august := at(t, "2025-06-25T00:00:00Z"), at(t, "2025-08-20T00:00:00Z")
	return []genuine{{
		name: "phala/sgx_quote", quote: read(t, "phala/sgx_quote"), collateral: phala, at: june,
		from: at(t, "2025-06-19T10:56:11Z"), to: at(t, "2025-07-19T10:01:18Z"),
		status: verify.ConfigurationAndSWHardeningNeeded, advisories: []string{"INTEL-SA-00289", "INTEL-SA-00615"},
		fmspc: "00a067110000", evaluation: 17,
		enclave: "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb",
		signer:  "815f42f11cf64430c30bab7816ba596a1da0130c3b028b673133a66cf9a3e0e6",
	}, {
		name: "automata/quotev3.hex", quote: readHex(t, "automata/quotev3.hex"), collateral: automata, at: august,
		from: at(t, "2025-08-15T05:41:26Z"), to: at(t, "2025-09-14T04:36:46Z"),
		status: verify.SWHardeningNeeded, advisories: []string{"INTEL-SA-00615"},
		fmspc: "00606a000000", evaluation: 17,
		enclave: "a4f45c39dac622cb1dd32ddb35a52ec92db41d0fa88a1c911c49e59c534f61cd",
		signer:  "8f2dbc0f9c5d3378d596974b2deed1f93223cc49242899f83809bcc92546132c",
	}, {
		name: "oasis/quote_v3", quote: read(t, "oasis/quote_v3_ecdsa_p256_pck_chain.bin"), collateral: automata, at: august,
		from: at(t, "2025-08-15T05:41:26Z"), to: at(t, "2025-09-14T04:36:46Z"),
		status: verify.OutOfDate,
		advisories: []string{"INTEL-SA-00615", "INTEL-SA-00657", "INTEL-SA-00730", "INTEL-SA-00738", "INTEL-SA-00767",
			"INTEL-SA-00828", "INTEL-SA-00837", "INTEL-SA-00960"},
		fmspc: "00606a000000", evaluation: 17,
		enclave: "68823bc62f409ee33a32ea270cfe45d4b19a6fb3c8570d7bc186cbe062398e8f",
		signer:  "9affcfae47b848ec2caf1c49b4b283531e1cc425f93582b36806e52a43d78d1a",
	}, {
		name: "automata/quote_sgx.bin", quote: read(t, "automata/quote_sgx.bin"), collateral: phala, at: june,
		from: at(t, "2025-06-19T10:56:11Z"), to: at(t, "2025-07-19T10:01:18Z"),
		status: verify.ConfigurationAndSWHardeningNeeded, advisories: []string{"INTEL-SA-00289", "INTEL-SA-00615"},
		fmspc: "00a067110000", evaluation: 17,
		enclave: "a39d532e6ac9fe8ad9418851bbe26e1dee7408006505fce8580b511b97e704b4",
		signer:  "9affcfae47b848ec2caf1c49b4b283531e1cc425f93582b36806e52a43d78d1a",
		debug:   true, // genuine all the same; package validate refuses it
	}}
}

func TestIntelRoot(t *testing.T) {
	if !bytes.Equal(verify.IntelRoot().Raw, read(t, "automata/root.der")) {
		t.Error("the built-in root is not the published one")
	}
}

func TestGenuineQuotes(t *testing.T) {
	for _, g := range genuineQuotes(t) {
		r, err := verify.Verify(g.quote, g.collateral, intel(g.at))
		if err != nil {
			t.Errorf("%s: got %v", g.name, err)
			continue
		}
		if r.Status != g.status || !slices.Equal(r.Advisories, g.advisories) {
			t.Errorf("%s: got %v with %v, want %v with %v", g.name, r.Status, r.Advisories, g.status, g.advisories)
		}
		if got := hex.EncodeToString(r.Platform.FMSPC[:]); got != g.fmspc {
			t.Errorf("%s: FMSPC: got %s, want %s", g.name, got, g.fmspc)
		}
		if got := hex.EncodeToString(r.Report.MREnclave[:]); got != g.enclave {
			t.Errorf("%s: MRENCLAVE: got %s, want %s", g.name, got, g.enclave)
		}
		if got := hex.EncodeToString(r.Report.MRSigner[:]); got != g.signer {
			t.Errorf("%s: MRSIGNER: got %s, want %s", g.name, got, g.signer)
		}
		if r.TCBEvaluation != g.evaluation || r.Report.ISVProdID != 0 || r.Report.ISVSVN != 0 || r.Report.Attributes.Debug() != g.debug {
			t.Errorf("%s: got evaluation %d, product %d, SVN %d, debug %v", g.name, r.TCBEvaluation, r.Report.ISVProdID, r.Report.ISVSVN, r.Report.Attributes.Debug())
		}
		if r.Simulated || r.Stale || !r.Expires.Equal(g.to) || !r.LatestIssue.Equal(g.from) {
			t.Errorf("%s: got simulated %v, stale %v, window %v to %v", g.name, r.Simulated, r.Stale, r.LatestIssue, r.Expires)
		}
	}
}

// What the certificate of the automata quote says, as openssl asn1parse prints it.
func TestPlatformOfAGenuineQuote(t *testing.T) {
	g := genuineQuotes(t)[1]
	r, err := verify.Verify(g.quote, g.collateral, intel(g.at))
	if err != nil {
		t.Fatal(err)
	}
	p := r.Platform
	for name, row := range map[string]struct{ got, want string }{
		"PPID":     {hex.EncodeToString(p.PPID[:]), "186950b6d8d014d89f0c144d1d90ebad"},
		"CPUSVN":   {hex.EncodeToString(p.CPUSVN[:]), "0e0e0303ffff01000000000000000000"},
		"levels":   {hex.EncodeToString(p.Components[:]), "0e0e0303ffff01000000000000000000"},
		"PCEID":    {hex.EncodeToString(p.PCEID[:]), "0000"},
		"instance": {hex.EncodeToString(p.InstanceID[:]), "7f96822f9d6421e505d4f256f65c5338"},
		"serial":   {p.Serial, "d52864cbb1cefa9de768485947ebdc026799b496"},
	} {
		if row.got != row.want {
			t.Errorf("%s: got %s, want %s", name, row.got, row.want)
		}
	}
	if p.PCESVN != 13 || p.Type != 1 || !p.HasInstance || !p.Dynamic || p.CachedKeys || p.SMT {
		t.Errorf("got %+v", p)
	}
}

func TestWindowOfGenuineQuotes(t *testing.T) {
	for _, g := range genuineQuotes(t) {
		for name, row := range map[string]struct {
			at time.Time
			ok bool
		}{
			"first second": {g.from, true},
			"last second":  {g.to, true},
			"before":       {g.from.Add(-time.Second), false},
			"after":        {g.to.Add(time.Second), false},
		} {
			if _, err := verify.Verify(g.quote, g.collateral, intel(row.at)); (err == nil) != row.ok {
				t.Errorf("%s, %s: got %v", g.name, name, err)
			}
		}
	}
}

// sampleQuote gives Intel's sample quote, which names its PCK by an encrypted
// PPID, the certificates that are published beside it.
func sampleQuote(t *testing.T) []byte {
	t.Helper()
	b := read(t, "intel-sample/quote.dat")
	const fixed = 436 + 576 + 2
	pemChain := append(read(t, "intel-sample/pckCert.pem"), read(t, "intel-sample/pckSignChain.pem")...)
	out := bytes.Clone(b[:fixed])
	out = binary.LittleEndian.AppendUint16(out, 5)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(pemChain)))
	out = append(out, pemChain...)
	binary.LittleEndian.PutUint32(out[432:], uint32(len(out)-436))
	return out
}

func sampleCollateral(t *testing.T) verify.Collateral {
	t.Helper()
	chain := read(t, "intel-sample/tcbSignChain.pem")
	c := verify.Collateral{
		RootCRL: read(t, "intel-sample/rootCaCrl.der"), PCKCRL: read(t, "intel-sample/intermediateCaCrl.der"),
		TCBInfoIssuerChain: chain, QEIdentityIssuerChain: chain,
	}
	if err := errors.Join(c.SetTCBInfo(read(t, "intel-sample/tcbInfo.json")), c.SetQEIdentity(read(t, "intel-sample/qeIdentity.json"))); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRefusedVectors(t *testing.T) {
	phala := phalaCollateral(t)
	december := at(t, "2022-12-20T00:50:04Z")
	oasis := read(t, "oasis/quote_v3_ecdsa_p256_pck_chain.bin")
	sampleRoot, _ := pem.Decode(read(t, "intel-sample/trustedRootCaCert.pem"))
	root, err := x509.ParseCertificate(sampleRoot.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sample := verify.Options{Roots: []*x509.Certificate{root}, Now: at(t, "2025-06-25T00:00:00Z")}
	bad := automataCollateral(t)
	bad.TCBInfoIssuerChain = read(t, "oasis/tcb_info_v3_fmspc_00606A000000_certs_bad.pem")
	for name, row := range map[string]struct {
		quote      []byte
		collateral verify.Collateral
		options    verify.Options
		step       verify.Step
		want       error
	}{
		"oasis without CRLs":      {oasis, oasisCollateral(t, "oasis/tcb_info_v3_fmspc_00606A000000_certs.pem"), intel(december), verify.StepCRL, verify.ErrRootCRLMissing},
		"damaged signing chain":   {readHex(t, "automata/quotev3.hex"), bad, intel(at(t, "2025-08-20T00:00:00Z")), verify.StepTCBInfo, verify.ErrCertIsCA},
		"encrypted PPID":          {read(t, "oasis/quote_v3_ecdsa_p256_eppid.bin"), phala, intel(december), verify.StepParse, quote.ErrCertType},
		"Intel's sample":          {read(t, "intel-sample/quote.dat"), phala, intel(december), verify.StepParse, quote.ErrCertType},
		"sample with chain":       {sampleQuote(t), sampleCollateral(t), intel(sample.Now), verify.StepPCKChain, verify.ErrUnknownRoot},
		"sample under its root":   {sampleQuote(t), sampleCollateral(t), sample, verify.StepTCBInfo, verify.ErrDocumentVersion},
		"TDX v4, phala":           {read(t, "phala/tdx_quote"), phala, intel(december), verify.StepParse, quote.ErrTDX},
		"TDX v5, phala, outdated": {read(t, "phala/tdx_quote_outdated"), phala, intel(december), verify.StepParse, quote.ErrTDX},
		"TDX v4, automata":        {readHex(t, "automata/quotev4.hex"), phala, intel(december), verify.StepParse, quote.ErrTDX},
		"TDX v5, automata":        {read(t, "automata/quotev5.dat"), phala, intel(december), verify.StepParse, quote.ErrTDX},
		"TDX v4, oasis":           {read(t, "oasis/quote_v4_tdx_ecdsa_p256.bin"), phala, intel(december), verify.StepParse, quote.ErrTDX},
		"collateral of another":   {readHex(t, "automata/quotev3.hex"), phala, intel(at(t, "2025-06-25T00:00:00Z")), verify.StepCRL, verify.ErrCRLIssuer},
		"no root":                 {oasis, phala, verify.Options{Now: december}, verify.StepPCKChain, verify.ErrNoRoot},
	} {
		_, err := verify.Verify(row.quote, row.collateral, row.options)
		var e *verify.Error
		if !errors.Is(err, row.want) || !errors.As(err, &e) || e.Step != row.step {
			t.Errorf("%s: got %v, want %v: %v", name, err, row.step, row.want)
		}
	}
}
