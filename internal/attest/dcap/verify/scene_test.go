package verify_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// A scene is a simulated fleet with one machine, a quote and collateral, which
// tests change one thing of.
type scene struct {
	t          *testing.T
	fleet      *issue.Fleet
	platform   verify.Platform
	machine    *issue.Machine
	terms      issue.Terms
	report     quote.Report
	quote      []byte
	collateral verify.Collateral
	options    verify.Options
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{t: t, platform: issue.NewPlatform()}
	var err error
	s.fleet, err = issue.NewFleet(now.Add(-day))
	s.must(err)
	s.machine, err = s.fleet.NewMachine(s.platform, now)
	s.must(err)
	s.terms = issue.Terms{Platform: s.platform, Issued: now.Add(-day), Next: now.Add(29 * day), Evaluation: 20}
	s.report = quote.Report{
		CPUSVN: s.platform.CPUSVN, Attributes: quote.Attributes{Flags: quote.FlagInit | quote.FlagMode64, XFRM: 7},
		MREnclave: [32]byte{1}, MRSigner: [32]byte{2}, ISVProdID: 3, ISVSVN: 4, ReportData: [64]byte{5},
	}
	s.options = verify.Options{Roots: []*x509.Certificate{s.fleet.Root.Cert}, Now: now, AllowSim: true}
	s.endorse()
	s.requote()
	return s
}

func (s *scene) endorse() {
	s.t.Helper()
	var err error
	s.collateral, err = s.fleet.Collateral(s.terms)
	s.must(err)
}

func (s *scene) requote() {
	s.t.Helper()
	var err error
	s.quote, err = s.machine.Quote(s.report)
	s.must(err)
}

func (s *scene) verify() (verify.Result, error) {
	return verify.Verify(s.quote, s.collateral, s.options)
}

// chain replaces the certificates of the quote.
func (s *scene) chain(ders ...[]byte) {
	s.t.Helper()
	s.machine.Chain = quote.EncodeChain(ders...)
	s.requote()
}

// reissuePCK gives the machine a PCK certificate changed by edit, from CA by.
func (s *scene) reissuePCK(by *issue.Authority, edit func(*x509.Certificate)) {
	s.t.Helper()
	tpl, err := issue.PCKTemplate(s.platform, now)
	s.must(err)
	edit(tpl)
	pck, err := by.Issue(tpl)
	s.must(err)
	s.machine, err = issue.NewMachine(pck, quote.EncodeChain(pck.Cert.Raw, s.fleet.PCKCA.Cert.Raw, s.fleet.Root.Cert.Raw))
	s.must(err)
	s.requote()
}

// extension gives the machine a PCK certificate with other contents of the SGX
// extension.
func (s *scene) extension(value any) {
	s.t.Helper()
	der, ok := value.([]byte)
	if !ok {
		var err error
		der, err = asn1.Marshal(value)
		s.must(err)
	}
	s.reissuePCK(s.fleet.PCKCA, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{{Id: issue.OID(), Value: der}}
	})
}

// resigned replaces bytes in a certificate by others of the same number, and
// signs it again.
func (s *scene) resigned(der []byte, by *issue.Authority, old, new []byte) []byte {
	s.t.Helper()
	var outer []asn1.RawValue
	_, err := asn1.Unmarshal(der, &outer)
	s.must(err)
	tbs := s.replaced(outer[0].FullBytes, string(old), string(new))
	return s.signed(tbs, outer[1], by)
}

// signed puts signed data, an algorithm and a signature into a sequence.
func (s *scene) signed(tbs []byte, algorithm asn1.RawValue, by *issue.Authority) []byte {
	s.t.Helper()
	sum := sha256.Sum256(tbs)
	signature, err := ecdsa.SignASN1(rand.Reader, by.Key, sum[:])
	s.must(err)
	bits, err := asn1.Marshal(asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)})
	s.must(err)
	der, err := asn1.Marshal([]asn1.RawValue{{FullBytes: tbs}, algorithm, {FullBytes: bits}})
	s.must(err)
	return der
}

// reissueCA replaces the PCK CA and the machine's certificate below it.
func (s *scene) reissueCA(edit func(*x509.Certificate)) {
	s.t.Helper()
	tpl := issue.CATemplate(now)
	edit(tpl)
	var err error
	s.fleet.PCKCA, err = s.fleet.Root.Issue(tpl)
	s.must(err)
	s.reissuePCK(s.fleet.PCKCA, func(*x509.Certificate) {})
}

// reissueSigner replaces the TCB signer, and signs all documents again.
func (s *scene) reissueSigner(edit func(*x509.Certificate)) {
	s.t.Helper()
	tpl := issue.SignerTemplate(now)
	edit(tpl)
	var err error
	s.fleet.TCBSigner, err = s.fleet.Root.Issue(tpl)
	s.must(err)
	s.endorse()
}

// tcbInfo signs a TCB info after a change.
func (s *scene) tcbInfo(edit func(*issue.TCBInfo)) {
	s.t.Helper()
	d := s.terms.TCBInfo()
	edit(&d)
	var err error
	s.collateral.TCBInfo, s.collateral.TCBInfoSignature, err = s.fleet.TCBSigner.SignDocument(d)
	s.must(err)
}

// qeIdentity signs a QE identity after a change.
func (s *scene) qeIdentity(edit func(*issue.QEIdentity)) {
	s.t.Helper()
	d := s.terms.QEIdentity()
	edit(&d)
	var err error
	s.collateral.QEIdentity, s.collateral.QEIdentitySignature, err = s.fleet.TCBSigner.SignDocument(d)
	s.must(err)
}

// tcbText signs a TCB info with a piece of its text replaced.
func (s *scene) tcbText(old, new string) {
	s.t.Helper()
	text := s.replaced(s.collateral.TCBInfo, old, new)
	var err error
	s.collateral.TCBInfo = text
	s.collateral.TCBInfoSignature, err = issue.SignRaw(s.fleet.TCBSigner.Key, text)
	s.must(err)
}

// qeText signs a QE identity with a piece of its text replaced.
func (s *scene) qeText(old, new string) {
	s.t.Helper()
	text := s.replaced(s.collateral.QEIdentity, old, new)
	var err error
	s.collateral.QEIdentity = text
	s.collateral.QEIdentitySignature, err = issue.SignRaw(s.fleet.TCBSigner.Key, text)
	s.must(err)
}

func (s *scene) replaced(text []byte, old, new string) []byte {
	s.t.Helper()
	out := bytes.Replace(text, []byte(old), []byte(new), 1)
	if bytes.Equal(out, text) {
		s.t.Fatalf("%q is not in %s", old, text)
	}
	return out
}

// parsed changes fields of the quote without signing it again.
func (s *scene) parsed(edit func(*quote.Quote)) {
	s.t.Helper()
	q, err := quote.Parse(s.quote)
	s.must(err)
	edit(q)
	s.quote, err = q.Append(nil)
	s.must(err)
}

// qe changes the quoting enclave and lets the PCK sign its report.
func (s *scene) qe(edit func(*quote.Report)) {
	s.t.Helper()
	edit(&s.machine.QE.Report)
	var err error
	s.machine.QE.Signature, err = issue.SignRaw(s.machine.PCK.Key, s.machine.QE.Report.Append(nil))
	s.must(err)
	s.requote()
}

// crl signs a list after a change of its template.
func (s *scene) crl(by *issue.Authority, edit func(*x509.RevocationList)) []byte {
	s.t.Helper()
	der, err := by.CRL(issue.CRL{Issued: s.terms.Issued, Next: s.terms.Next})
	s.must(err)
	l, err := x509.ParseRevocationList(der)
	s.must(err)
	edit(l)
	der, err = x509.CreateRevocationList(rand.Reader, l, by.Cert, by.Key)
	s.must(err)
	return der
}

// crlElements signs a list after a change of the elements of its inner sequence:
// version, algorithm, issuer, thisUpdate, nextUpdate, extensions.
func (s *scene) crlElements(by *issue.Authority, edit func([]asn1.RawValue) []asn1.RawValue) []byte {
	s.t.Helper()
	der := s.crl(by, func(*x509.RevocationList) {})
	var outer, inner []asn1.RawValue
	_, err := asn1.Unmarshal(der, &outer)
	s.must(err)
	_, err = asn1.Unmarshal(outer[0].FullBytes, &inner)
	s.must(err)
	tbs, err := asn1.Marshal(edit(inner))
	s.must(err)
	return s.signed(tbs, outer[1], by)
}

// A refusal is a scene that must not verify.
type refusal struct {
	change func(s *scene)
	step   verify.Step
	want   error
}

func testRefusals(t *testing.T, rows map[string]refusal) {
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			row.change(s)
			r, err := s.verify()
			var e *verify.Error
			if !errors.As(err, &e) || e.Step != row.step || !errors.Is(err, row.want) {
				t.Errorf("got %v, want %v: %v", err, row.step, row.want)
			}
			if r.Status != 0 || r.Report != (quote.Report{}) {
				t.Errorf("a result was returned with the error: %+v", r)
			}
		})
	}
}
