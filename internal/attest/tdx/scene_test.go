package tdx

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

var sceneNow = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// A scene is a machine that makes TDX quotes, with certificates that have Intel's
// names, as go-tdx-guest wants them, and a root that nobody else trusts.
type scene struct {
	t       testing.TB
	fleet   *issue.Fleet
	machine *issue.Machine
	terms   issue.Terms
	version uint16
	report  Report
	tcbInfo func(m map[string]any)    // edits it before it is signed
	qe      func(m *issue.QEIdentity) // likewise
	levels  []any                     // replace those of TCB info, if set
	raw     func(b []byte) []byte     // edits the quote after it is signed
	spoil   func(c *verify.Collateral)
	options verify.Options
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func named(t *x509.Certificate, name string) *x509.Certificate {
	t.Subject = pkix.Name{CommonName: name, Organization: []string{"Intel Corporation"}}
	t.CRLDistributionPoints = []string{"https://crl.invalid/"}
	return t
}

func newScene(t testing.TB) *scene {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := named(issue.RootTemplate(sceneNow), "Intel SGX Root CA")
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	f := &issue.Fleet{Root: &issue.Authority{Cert: cert, Key: key}}
	f.PCKCA, err = f.Root.Issue(named(issue.CATemplate(sceneNow), "Intel SGX PCK Platform CA"))
	check(t, err)
	f.TCBSigner, err = f.Root.Issue(named(issue.SignerTemplate(sceneNow), "Intel SGX TCB Signing"))
	check(t, err)
	p := issue.NewPlatform()
	leaf, err := issue.PCKTemplate(p, sceneNow)
	check(t, err)
	leaf.SubjectKeyId = []byte{1, 2, 3}
	pck, err := f.PCKCA.Issue(named(leaf, "Intel SGX PCK Certificate"))
	check(t, err)
	m, err := issue.NewMachine(pck, quote.EncodeChain(pck.Cert.Raw, f.PCKCA.Cert.Raw, f.Root.Cert.Raw))
	check(t, err)
	return &scene{
		t: t, fleet: f, machine: m, version: version4,
		terms: issue.Terms{Platform: p, Issued: sceneNow.Add(-time.Hour), Next: sceneNow.Add(24 * time.Hour), Evaluation: 20},
		report: Report{
			TEETCBSVN: [16]byte{5, 1, 3}, Attributes: 1 << 28, XFAM: 0xe7,
			MRTD: [48]byte{0xaa}, RTMR: [4][48]byte{{1}, {2}, {3}, {4}}, MRConfigID: [48]byte{0xcc}, ReportData: [64]byte{0x5e},
		},
		options: verify.Options{Roots: []*x509.Certificate{cert}, Now: sceneNow},
	}
}

// quote signs the scene's quote.
func (s *scene) quote() []byte {
	s.t.Helper()
	le := binary.LittleEndian
	b := le.AppendUint16(nil, s.version)
	b = le.AppendUint16(b, keyTypeP256)
	b = le.AppendUint32(b, teeTypeTDX)
	b = append(append(b, 0, 0, 0, 0), intelVendor...)
	b = append(b, make([]byte, 20)...)
	r := &s.report
	if s.version == version5 {
		kind, size := uint16(bodyType10), uint32(body10Size)
		if r.TDX15 {
			kind, size = bodyType15, body15Size
		}
		b = le.AppendUint32(le.AppendUint16(b, kind), size)
	}
	for _, f := range [][]byte{r.TEETCBSVN[:], r.MRSEAM[:], r.MRSignerSEAM[:], r.SEAMAttributes[:]} {
		b = append(b, f...)
	}
	b = le.AppendUint64(le.AppendUint64(b, r.Attributes), r.XFAM)
	for _, f := range [][]byte{r.MRTD[:], r.MRConfigID[:], r.MROwner[:], r.MROwnerConfig[:], r.RTMR[0][:], r.RTMR[1][:], r.RTMR[2][:], r.RTMR[3][:], r.ReportData[:]} {
		b = append(b, f...)
	}
	if r.TDX15 {
		b = append(append(b, r.TEETCBSVN2[:]...), r.MRServiceTD[:]...)
	}
	qe := &s.machine.QE
	signature, err := issue.SignRaw(qe.Key, b)
	check(s.t, err)
	point, err := qe.Key.PublicKey.Bytes()
	check(s.t, err)
	inner := qe.Report.Append(nil)
	inner = append(inner, qe.Signature[:]...)
	inner = append(le.AppendUint16(inner, uint16(len(qe.AuthData))), qe.AuthData...)
	inner = le.AppendUint32(le.AppendUint16(inner, certTypePCKChain), uint32(len(s.machine.Chain)))
	inner = append(inner, s.machine.Chain...)
	data := append(signature[:], point[1:]...)
	data = le.AppendUint32(le.AppendUint16(data, certTypeQEReport), uint32(len(inner)))
	data = append(data, inner...)
	b = append(le.AppendUint32(b, uint32(len(data))), data...)
	if s.raw != nil {
		b = s.raw(b)
	}
	return b
}

// level is a level of TCB info for TDX, from the levels of the scene's machine.
func (s *scene) level(status string, tdxSVN ...int) map[string]any {
	sgx, tdx := []any{}, []any{}
	for i := range components {
		sgx = append(sgx, map[string]any{"svn": s.terms.Platform.Components[i]})
		svn := 0
		if i < len(tdxSVN) {
			svn = tdxSVN[i]
		}
		tdx = append(tdx, map[string]any{"svn": svn})
	}
	return map[string]any{
		"tcb":     map[string]any{"sgxtcbcomponents": sgx, "pcesvn": s.terms.Platform.PCESVN, "tdxtcbcomponents": tdx},
		"tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": status,
	}
}

// module is an identity of a TDX module with one level.
func module(id string, svn int, status string) map[string]any {
	m := signer()
	m["id"] = id
	m["tcbLevels"] = []any{map[string]any{"tcb": map[string]any{"isvsvn": svn}, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": status}}
	return m
}

// signer is what TCB info says of who signs modules.
func signer() map[string]any {
	return map[string]any{"mrsigner": hex.EncodeToString(make([]byte, 48)), "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF"}
}

// of returns m with another value.
func of(m map[string]any, name string, value any) map[string]any {
	m[name] = value
	return m
}

func (s *scene) collateral() verify.Collateral {
	s.t.Helper()
	c, err := s.fleet.Collateral(s.terms)
	check(s.t, err)
	b, err := json.Marshal(s.terms.TCBInfo())
	check(s.t, err)
	info := map[string]any{}
	check(s.t, json.Unmarshal(b, &info))
	info["id"], info["tdxModule"] = "TDX", signer()
	info["tdxModuleIdentities"] = []any{module("TDX_01", 5, "UpToDate")}
	info["tcbLevels"] = []any{s.level("UpToDate", 9, 0, 3)}
	if s.levels != nil {
		info["tcbLevels"] = s.levels
	}
	if s.tcbInfo != nil {
		s.tcbInfo(info)
	}
	c.TCBInfo, c.TCBInfoSignature, err = s.fleet.TCBSigner.SignDocument(info)
	check(s.t, err)
	identity := s.terms.QEIdentity()
	identity.ID = "TD_QE"
	if s.qe != nil {
		s.qe(&identity)
	}
	c.QEIdentity, c.QEIdentitySignature, err = s.fleet.TCBSigner.SignDocument(identity)
	check(s.t, err)
	if s.spoil != nil {
		s.spoil(&c)
	}
	return c
}

func (s *scene) verify() (*Result, error) { return Verify(s.quote(), s.collateral(), s.options) }

func TestScene(t *testing.T) {
	for name, change := range map[string]func(*scene){
		"version 4":          func(*scene) {},
		"version 5, TDX 1.0": func(s *scene) { s.version = version5 },
		"version 5, TDX 1.5": func(s *scene) { s.version, s.report.TDX15, s.report.MRServiceTD = version5, true, [48]byte{7} },
		"padded":             func(s *scene) { s.raw = func(b []byte) []byte { return append(b, make([]byte, 100)...) } },
		"TDX module 1.0":     func(s *scene) { s.report.TEETCBSVN = [16]byte{9, 0, 3} },
	} {
		s := newScene(t)
		change(s)
		r, err := s.verify()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.Status != verify.UpToDate || r.Quote.Report != s.report || r.TCBEvaluation != 20 || r.Platform.PPID != s.terms.Platform.PPID {
			t.Errorf("%s: got %v, %+v", name, r.Status, r.Quote.Report)
		}
	}
}

// The lesser number counts: one document may be older than the other.
func TestLesserEvaluationNumber(t *testing.T) {
	s := newScene(t)
	s.qe = func(m *issue.QEIdentity) { m.Evaluation = 19 }
	if r, err := s.verify(); err != nil || r.TCBEvaluation != 19 {
		t.Errorf("got %+v, %v, want evaluation 19", r, err)
	}
}

func TestStatuses(t *testing.T) {
	newer := func(s *scene) []any {
		up := s.level("UpToDate", 9, 0, 4)
		up["tcbDate"] = "2025-06-01T00:00:00Z"
		return []any{up, s.level("OutOfDate", 0, 0, 3)}
	}
	advised := func(l map[string]any, ids ...string) map[string]any {
		l["advisoryIDs"] = ids
		return l
	}
	for _, row := range []struct {
		name       string
		change     func(*scene)
		status     verify.Status
		advisories []string
		since      string // date from which on more is asked
	}{
		{"machine needs hardening", func(s *scene) { s.levels = []any{advised(s.level("SWHardeningNeeded"), "A-2", "A-1")} }, verify.SWHardeningNeeded, []string{"A-1", "A-2"}, ""},
		{"machine is out of date", func(s *scene) { s.levels = newer(s) }, verify.OutOfDate, nil, "2025-06-01"},
		{"module is out of date", func(s *scene) {
			s.tcbInfo = func(m map[string]any) { m["tdxModuleIdentities"] = []any{module("tdx_01", 2, "OutOfDate")} }
		}, verify.OutOfDate, nil, ""},
		{"machine and module are out of date", func(s *scene) {
			s.levels = newer(s)
			s.tcbInfo = func(m map[string]any) { m["tdxModuleIdentities"] = []any{module("TDX_01", 2, "OutOfDate")} }
		}, verify.OutOfDate, nil, ""}, // no date: no grace period may cover the module
		{"module is out of date, machine needs configuration", func(s *scene) {
			s.levels = []any{advised(s.level("ConfigurationNeeded"), "A-1")}
			s.tcbInfo = func(m map[string]any) {
				m["tdxModuleIdentities"] = []any{module("TDX_03", 1, "UpToDate"), module("TDX_01", 2, "OutOfDate")}
			}
		}, verify.OutOfDateConfigurationNeeded, []string{"A-1"}, ""},
		{"quoting enclave is out of date", func(s *scene) {
			s.terms.QEStatus, s.terms.QEAdvisories = verify.OutOfDate, []string{"Q-1"}
			s.terms.NewerDate = time.Date(2025, 7, 1, 0, 0, 0, 0, time.UTC)
		}, verify.OutOfDate, []string{"Q-1"}, "2025-07-01"},
	} {
		s := newScene(t)
		row.change(s)
		r, err := s.verify()
		if err != nil || r.Status != row.status || !slices.Equal(r.Advisories, row.advisories) {
			t.Errorf("%s: got %v, %v, want %v %v", row.name, r, err, row.status, row.advisories)
			continue
		}
		since := ""
		if !r.OutOfDateSince.IsZero() {
			since = r.OutOfDateSince.Format(time.DateOnly)
		}
		if since != row.since {
			t.Errorf("%s: out of date since %q, want %q", row.name, since, row.since)
		}
	}
}
