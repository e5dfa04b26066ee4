package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	sgx "github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

const (
	dcapData = "../../internal/attest/dcap/testdata" // its README names the sources
	tdxData  = "../../internal/attest/tdx/testdata"
	snpData  = "../../internal/attest/snp/testdata"
)

// vectors fills a script's directory: dcap is the published quotes and
// collateral, made has collateral put together from their parts and a simulated
// fleet, and doc.sh the examples of docs/attestation.md.
func vectors(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: vectors")
	}
	ts.Check(os.CopyFS(ts.MkAbs("dcap"), os.DirFS(dcapData)))
	m := &maker{ts: ts, dir: ts.MkAbs("made")}
	ts.Check(os.Mkdir(m.dir, 0o700))
	m.guests()
	m.collateral()
	m.sample()
	m.fleet()
	ts.Check(os.WriteFile(ts.MkAbs("doc.sh"), docExamples(m.read("../../docs/attestation.md")), 0o600))
}

// docExamples returns the shell blocks of a text in Markdown.
func docExamples(markdown []byte) []byte {
	var out []byte
	inside := false
	for line := range bytes.Lines(markdown) {
		switch fence := bytes.HasPrefix(line, []byte("```")); {
		case fence:
			inside = !inside && bytes.Equal(bytes.TrimSpace(line), []byte("```sh"))
		case inside:
			out = append(out, line...)
		}
	}
	return out
}

// A maker writes what the published files do not have in the form that the
// command reads.
type maker struct {
	ts  *testscript.TestScript
	dir string
}

func (m *maker) read(path string) []byte {
	b, err := os.ReadFile(path)
	m.ts.Check(err)
	return b
}

func (m *maker) data(name string) []byte { return m.read(filepath.Join(dcapData, name)) }

func (m *maker) write(name string, b []byte) {
	m.ts.Check(os.WriteFile(filepath.Join(m.dir, name), b, 0o600))
}

// bundles writes collateral in both forms.
func (m *maker) bundles(name string, c verify.Collateral) {
	m.write(name+".bundle", c.Append(nil))
	b, err := json.Marshal(map[string]string{
		"pck_crl_issuer_chain": string(c.PCKCRLIssuerChain),
		"root_ca_crl":          hex.EncodeToString(c.RootCRL), "pck_crl": hex.EncodeToString(c.PCKCRL),
		"tcb_info_issuer_chain": string(c.TCBInfoIssuerChain), "tcb_info": string(c.TCBInfo),
		"tcb_info_signature":       hex.EncodeToString(c.TCBInfoSignature[:]),
		"qe_identity_issuer_chain": string(c.QEIdentityIssuerChain), "qe_identity": string(c.QEIdentity),
		"qe_identity_signature": hex.EncodeToString(c.QEIdentitySignature[:]),
	})
	m.ts.Check(err)
	m.write(name+".json", b)
}

// signed makes collateral of Intel's two documents and the chain of their signer.
func (m *maker) signed(chain []byte, tcbInfo, qeIdentity string) verify.Collateral {
	c := verify.Collateral{TCBInfoIssuerChain: chain, QEIdentityIssuerChain: chain}
	m.ts.Check(c.SetTCBInfo(m.data(tcbInfo)))
	m.ts.Check(c.SetQEIdentity(m.data(qeIdentity)))
	return c
}

// guests writes a SEV-SNP report with its certificates in one file, and the
// collateral of TDX quotes.
func (m *maker) guests() {
	for _, name := range []string{"tdx_quote_collateral.json", "tdx_quote_outdated_collateral.json"} {
		m.write(name, m.read(filepath.Join(tdxData, name)))
	}
	m.write("snp_report.bin", m.read(filepath.Join(snpData, "attestation.bin")))
	vcek := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.read(filepath.Join(snpData, "vcek.testcer"))})
	m.write("snp.pem", append(vcek, m.read(filepath.Join(snpData, "milan.testcer"))...))
	m.write("snp-vlek.pem", append(vcek, m.read(filepath.Join(snpData, "milanvlek.testcer"))...))
}

func (m *maker) collateral() {
	chain := sgx.EncodeChain(m.data("automata/signing.der"), m.data("automata/root.der"))
	c := m.signed(chain, "automata/sgx_tcbinfov3_00606a000000.json", "automata/sgx_qeidentity_v4.json")
	c.RootCRL, c.PCKCRL = m.data("automata/intel_root_ca_crl.der"), m.data("automata/platform_crl.der")
	m.bundles("automata", c)
	c.TCBInfoIssuerChain = m.data("oasis/tcb_info_v3_fmspc_00606A000000_certs_bad.pem")
	m.bundles("badsigner", c)
	c = m.signed(m.data("oasis/tcb_info_v3_fmspc_00606A000000_certs.pem"), "oasis/tcb_info_v3_fmspc_00606A000000.json", "oasis/qe_identity_v2.json")
	m.bundles("oasis", c)
	m.write("intel-root.pem", sgx.EncodeChain(m.data("automata/root.der")))
}

// sample gives Intel's sample quote, which names its PCK by an encrypted PPID,
// the certificates that are published beside it.
func (m *maker) sample() {
	const fixed, lengthAt = 436 + 576 + 2, 432
	chain := append(m.data("intel-sample/pckCert.pem"), m.data("intel-sample/pckSignChain.pem")...)
	q := bytes.Clone(m.data("intel-sample/quote.dat")[:fixed])
	q = binary.LittleEndian.AppendUint16(q, 5)
	q = append(binary.LittleEndian.AppendUint32(q, uint32(len(chain))), chain...)
	binary.LittleEndian.PutUint32(q[lengthAt:], uint32(len(q)-lengthAt-4))
	m.write("sample.quote", q)
	c := m.signed(m.data("intel-sample/tcbSignChain.pem"), "intel-sample/tcbInfo.json", "intel-sample/qeIdentity.json")
	c.RootCRL, c.PCKCRL = m.data("intel-sample/rootCaCrl.der"), m.data("intel-sample/intermediateCaCrl.der")
	m.bundles("sample", c)
}

// fleet makes what no published quote shows: a platform that is up to date, the
// same out of date, below all levels, and revoked. All of it is in force on
// 2026-03-01.
func (m *maker) fleet() {
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	f, err := issue.NewFleet(at)
	m.ts.Check(err)
	p := issue.NewPlatform()
	machine, err := f.NewMachine(p, at)
	m.ts.Check(err)
	q, err := machine.Quote(sgx.Report{
		Attributes: sgx.Attributes{Flags: sgx.FlagInit | sgx.FlagMode64, XFRM: 7},
		MREnclave:  [32]byte(bytes.Repeat([]byte{0xaa}, 32)), MRSigner: [32]byte(bytes.Repeat([]byte{0xbb}, 32)),
		ISVProdID: 1, ISVSVN: 2, ReportData: [64]byte(bytes.Repeat([]byte{0x5e}, 64)),
	})
	m.ts.Check(err)
	m.write("sim.quote", q)
	m.write("sim-root.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Root.Cert.Raw}))
	m.write("sim-ppid", []byte(hex.EncodeToString(p.PPID[:])))
	for name, edit := range map[string]func(*issue.Terms){
		"sim-good":    func(*issue.Terms) {},
		"sim-before":  func(t *issue.Terms) { t.Issued = t.Issued.Add(-24 * time.Hour) },
		"sim-old":     func(t *issue.Terms) { t.Status, t.Advisories = verify.OutOfDate, []string{"SIM-SA-1"} },
		"sim-bad":     func(t *issue.Terms) { t.Status = verify.Revoked },
		"sim-revoked": func(t *issue.Terms) { t.RevokedPCKs = []*big.Int{machine.PCK.Cert.SerialNumber} },
		"sim-below":   func(t *issue.Terms) { t.Platform.Components[0]++ },
	} {
		t := issue.Terms{Platform: p, Issued: at.Add(-24 * time.Hour), Next: at.Add(24 * time.Hour), Evaluation: 20}
		edit(&t)
		c, err := f.Collateral(t)
		m.ts.Check(err)
		m.bundles(name, c)
	}
}

// Every refusal tells a person what to do.
func TestAttestHints(t *testing.T) {
	for s := verify.StepParse; s <= verify.StepTCBLevel; s++ {
		if attestHint(s.String(), os.ErrInvalid) == "" {
			t.Errorf("step %v has no hint", s)
		}
	}
}

func TestQuoteBytes(t *testing.T) {
	for name, row := range map[string]struct{ in, want string }{
		"binary":           {"\x03\x00\x02\x00", "\x03\x00\x02\x00"},
		"binary, blank":    {" \x03\x00\n", " \x03\x00\n"},
		"hex":              {"03000200", "\x03\x00\x02\x00"},
		"hex in lines":     {"0300\r\n0200\n", "\x03\x00\x02\x00"},
		"hex with prefix":  {"0x0300", "\x03\x00"},
		"upper case":       {"0A0B", "\x0a\x0b"},
		"odd":              {"030", "030"},
		"no hex":           {"quote", "quote"},
		"empty":            {"", ""},
		"white space only": {"\n", "\n"},
	} {
		if got := string(quoteBytes([]byte(row.in))); got != row.want {
			t.Errorf("%s: got %q, want %q", name, got, row.want)
		}
	}
}

// Whatever a file has in it, a verdict is given or the file is refused; hostile
// names in a certificate do not reach the terminal.
func FuzzAttestShow(f *testing.F) {
	for _, name := range []string{"phala/sgx_quote", "automata/quotev3.hex", "phala/tdx_quote"} {
		b, err := os.ReadFile(filepath.Join(dcapData, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v := judge(&evidence{file: "q", raw: quoteBytes(b)})
		if v.Genuine.Answer == answerYes || v.TCB != nil {
			t.Errorf("genuine without collateral: %+v", v)
		}
		if strings.ContainsFunc(v.text(), func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f }) {
			t.Errorf("control characters in %q", v.text())
		}
	})
}

func TestAttestExitCodes(t *testing.T) {
	q, c := filepath.Join(dcapData, "phala/sgx_quote"), filepath.Join(dcapData, "phala/sgx_quote_collateral.json")
	for name, row := range map[string]struct {
		args []string
		want int
	}{
		"group":              {nil, exitOK},
		"shown":              {[]string{"show", q}, exitOK},
		"genuine":            {[]string{"verify", q, "--collateral", c, "--at", "2025-06-25"}, exitOK},
		"expired":            {[]string{"verify", q, "--collateral", c, "--at", "2026-06-25"}, exitError},
		"shown, but expired": {[]string{"show", q, "--collateral", c, "--at", "2026-06-25"}, exitError},
		"no file":            {[]string{"show"}, exitUsage},
		"two files":          {[]string{"show", q, q}, exitUsage},
		"no collateral":      {[]string{"verify", q}, exitUsage},
		"bad time":           {[]string{"show", q, "--at", "2025"}, exitUsage},
		"policy of show":     {[]string{"show", q, "--policy", c}, exitUsage},
	} {
		got := run(t.Context(), append([]string{"attest"}, row.args...), home(t), strings.NewReader(""), io.Discard, io.Discard)
		if got != row.want {
			t.Errorf("%s: got exit code %d, want %d", name, got, row.want)
		}
	}
}
