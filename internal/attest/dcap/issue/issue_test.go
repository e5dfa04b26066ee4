package issue_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("../testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fleet(t *testing.T) (*issue.Fleet, *issue.Machine) {
	t.Helper()
	f, err := issue.NewFleet(now)
	if err != nil {
		t.Fatal(err)
	}
	m, err := f.NewMachine(issue.NewPlatform(), now)
	if err != nil {
		t.Fatal(err)
	}
	return f, m
}

func jsonCollateral(t *testing.T) verify.Collateral {
	t.Helper()
	c, err := verify.DecodeCollateralJSON(read(t, "phala/sgx_quote_collateral.json"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fileCollateral(t *testing.T) verify.Collateral {
	t.Helper()
	chain := quote.EncodeChain(read(t, "automata/signing.der"), read(t, "automata/root.der"))
	c := verify.Collateral{
		RootCRL: read(t, "automata/intel_root_ca_crl.der"), PCKCRL: read(t, "automata/platform_crl.der"),
		TCBInfoIssuerChain: chain, QEIdentityIssuerChain: chain,
	}
	if err := errors.Join(
		c.SetTCBInfo(read(t, "automata/sgx_tcbinfov3_00606a000000.json")), c.SetQEIdentity(read(t, "automata/sgx_qeidentity_v4.json")),
	); err != nil {
		t.Fatal(err)
	}
	return c
}

// Intel's own bytes for what Intel's certificate says.
func TestExtensionKnownAnswers(t *testing.T) {
	for name, row := range map[string]struct {
		quote      string
		collateral verify.Collateral
		at         time.Time
	}{
		"processor CA": {"phala/sgx_quote", jsonCollateral(t), time.Date(2025, 6, 25, 0, 0, 0, 0, time.UTC)},
		"platform CA":  {"oasis/quote_v3_ecdsa_p256_pck_chain.bin", fileCollateral(t), time.Date(2025, 8, 20, 0, 0, 0, 0, time.UTC)},
	} {
		b := read(t, row.quote)
		r, err := verify.Verify(b, row.collateral, verify.Options{Roots: []*x509.Certificate{verify.IntelRoot()}, Now: row.at})
		if err != nil {
			t.Fatal(err)
		}
		q, err := quote.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(q.CertData)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(issue.OID()) })
		if got, err := issue.MarshalExtension(r.Platform); err != nil || !bytes.Equal(got, cert.Extensions[i].Value) {
			t.Errorf("%s: got %x, %v, want %x", name, got, err, cert.Extensions[i].Value)
		}
	}
}

// Intel's documents, read into the types of this package and written again.
func TestDocumentKnownAnswers(t *testing.T) {
	c := jsonCollateral(t)
	for name, row := range map[string]struct {
		document any
		want     []byte
	}{
		"TCB info":    {&issue.TCBInfo{}, c.TCBInfo},
		"QE identity": {&issue.QEIdentity{}, c.QEIdentity},
	} {
		if err := json.Unmarshal(row.want, row.document); err != nil {
			t.Fatal(err)
		}
		if got, err := json.Marshal(row.document); err != nil || !bytes.Equal(got, row.want) {
			t.Errorf("%s: got %s, %v, want %s", name, got, err, row.want)
		}
	}
}

func TestEverySubjectIsMarked(t *testing.T) {
	f, m := fleet(t)
	for _, a := range []*issue.Authority{f.Root, f.PCKCA, f.TCBSigner, m.PCK} {
		if got := a.Cert.Subject.Organization; !slices.Equal(got, []string{"SIMULATION - NOT INTEL"}) {
			t.Errorf("%s: organization %q", a.Cert.Subject.CommonName, got)
		}
	}
}

func verifies(t *testing.T, f *issue.Fleet, m *issue.Machine, p verify.Platform) error {
	t.Helper()
	c, err := f.Collateral(issue.Terms{Platform: p, Issued: now, Next: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	q, err := m.Quote(quote.Report{MREnclave: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = verify.Verify(q, c, verify.Options{Roots: []*x509.Certificate{f.Root.Cert}, Now: now, AllowSim: true})
	return err
}

func TestStoredFleetAndMachineGoOn(t *testing.T) {
	f, err := issue.NewFleet(now)
	if err != nil {
		t.Fatal(err)
	}
	p := issue.NewPlatform()
	m, err := f.NewMachine(p, now)
	if err != nil {
		t.Fatal(err)
	}
	fleetFile, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	machineFile, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	f2, err := issue.ParseFleet(fleetFile)
	if err != nil {
		t.Fatal(err)
	}
	m2, err := issue.ParseMachine(machineFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifies(t, f2, m2, p); err != nil {
		t.Errorf("a stored machine: %v", err)
	}
	m3, err := f2.NewMachine(p, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := verifies(t, f, m3, p); err != nil {
		t.Errorf("a machine of a stored fleet: %v", err)
	}
	if again, err := m2.Marshal(); err != nil || !bytes.Equal(again, machineFile) {
		t.Errorf("Marshal of a parsed machine differs, %v", err)
	}
	if bytes.Equal(m.QE.Report.ReportData[:], m2.QE.Report.ReportData[:]) {
		t.Error("a parsed machine has the attestation key of the one before")
	}
}

func TestStoredRefused(t *testing.T) {
	f, m := fleet(t)
	other, _ := fleet(t)
	text, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	otherText, err := other.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.SplitAfter(string(text), "-----END PRIVATE KEY-----\n")
	others := strings.SplitAfter(string(otherText), "-----END PRIVATE KEY-----\n")
	_, otherKey, _ := strings.Cut(others[0], "-----BEGIN PRIVATE")
	cert, _, _ := strings.Cut(blocks[0], "-----BEGIN PRIVATE")
	for name, bad := range map[string]string{
		"empty":                   "",
		"two authorities":         blocks[0] + blocks[1],
		"four authorities":        string(text) + blocks[0],
		"CA of another fleet":     blocks[0] + others[1] + blocks[2],
		"signer of another fleet": blocks[0] + blocks[1] + others[2],
		"key of another":          cert + "-----BEGIN PRIVATE" + otherKey + blocks[1] + blocks[2],
		"no key":                  cert + blocks[1] + blocks[2],
		"damaged":                 strings.Replace(string(text), "\nMII", "\nAAA", 1),
		"text at the end":         string(text) + "x",
	} {
		if _, err := issue.ParseFleet([]byte(bad)); !errors.Is(err, issue.ErrStored) {
			t.Errorf("%s: got %v, want ErrStored", name, err)
		}
	}
	machine, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"empty":           "",
		"a fleet":         string(text),
		"no chain":        strings.SplitAfter(string(machine), "-----END PRIVATE KEY-----\n")[0],
		"text at the end": string(machine) + "x",
	} {
		if _, err := issue.ParseMachine([]byte(bad)); !errors.Is(err, issue.ErrStored) {
			t.Errorf("machine, %s: got %v, want ErrStored", name, err)
		}
	}
}

// A machine may sign quotes from several goroutines.
func TestConcurrentQuotes(t *testing.T) {
	f, err := issue.NewFleet(now)
	if err != nil {
		t.Fatal(err)
	}
	p := issue.NewPlatform()
	m, err := f.NewMachine(p, now)
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error)
	for range 4 {
		go func() {
			_, err := m.Quote(quote.Report{})
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
