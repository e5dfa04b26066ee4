// Package guesttest makes evidence of TDX and SEV-SNP guests under roots that nobody
// else trusts, for tests of what judges it. Quotes and reports have the shape of real
// ones; what real machines sign is in the tests of packages tdx and snp.
package guesttest

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/tdx"
)

var intelVendor = []byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}

// A TDX is a machine that makes TDX quotes, with certificates that have Intel's
// names, as go-tdx-guest wants them.
type TDX struct {
	Root    *x509.Certificate
	Terms   issue.Terms // of the machine and its collateral; may be changed
	Version uint16      // of its quotes, 4 or 5; 0: 4
	fleet   *issue.Fleet
	machine *issue.Machine
}

// NewTDX makes a machine whose certificates are in force at now.
func NewTDX(now time.Time) (*TDX, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root := named(issue.RootTemplate(now), "Intel SGX Root CA")
	der, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	m := &TDX{}
	if m.Root, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	m.fleet = &issue.Fleet{Root: &issue.Authority{Cert: m.Root, Key: key}}
	if m.fleet.PCKCA, err = m.fleet.Root.Issue(named(issue.CATemplate(now), "Intel SGX PCK Platform CA")); err != nil {
		return nil, err
	}
	if m.fleet.TCBSigner, err = m.fleet.Root.Issue(named(issue.SignerTemplate(now), "Intel SGX TCB Signing")); err != nil {
		return nil, err
	}
	m.Terms = issue.Terms{Platform: issue.NewPlatform(), Issued: now.Add(-time.Hour), Next: now.Add(24 * time.Hour), Evaluation: 20}
	return m, m.own(now)
}

// own makes the machine's PCK certificate.
func (m *TDX) own(now time.Time) error {
	leaf, err := issue.PCKTemplate(m.Terms.Platform, now)
	if err != nil {
		return err
	}
	leaf.SubjectKeyId = []byte{1, 2, 3}
	pck, err := m.fleet.PCKCA.Issue(named(leaf, "Intel SGX PCK Certificate"))
	if err != nil {
		return err
	}
	m.Terms.Platform, err = verify.PlatformOf(pck.Cert)
	if err != nil {
		return err
	}
	m.machine, err = issue.NewMachine(pck, quote.EncodeChain(pck.Cert.Raw, m.fleet.PCKCA.Cert.Raw, m.Root.Raw))
	return err
}

func named(t *x509.Certificate, name string) *x509.Certificate {
	t.Subject = pkix.Name{CommonName: name, Organization: []string{"Intel Corporation"}}
	t.CRLDistributionPoints = []string{"https://crl.invalid/"}
	return t
}

// Guest returns the report of a guest that is up to date and not in debug mode.
func Guest(reportData [64]byte) tdx.Report {
	return tdx.Report{
		TEETCBSVN: [16]byte{5, 1, 3}, Attributes: 1 << 28, XFAM: 0xe7,
		MRTD: [48]byte{0xaa}, RTMR: [4][48]byte{{1}, {2}, {3}, {4}}, MRConfigID: [48]byte{0xcc}, ReportData: reportData,
	}
}

// Quote signs a report of TDX 1.0 as a quote.
func (m *TDX) Quote(r tdx.Report) ([]byte, error) {
	const keyTypeP256, teeTDX, certTypePCKChain, certTypeQEReport = 2, 0x81, 5, 6
	const bodyType10, body10Size = 2, 584
	le := binary.LittleEndian
	b := le.AppendUint16(nil, cmp.Or(m.Version, 4))
	b = le.AppendUint16(b, keyTypeP256)
	b = le.AppendUint32(b, teeTDX)
	b = append(append(b, 0, 0, 0, 0), intelVendor...)
	b = append(b, make([]byte, 20)...)
	if m.Version == 5 {
		b = le.AppendUint32(le.AppendUint16(b, bodyType10), body10Size)
	}
	for _, f := range [][]byte{r.TEETCBSVN[:], r.MRSEAM[:], r.MRSignerSEAM[:], r.SEAMAttributes[:]} {
		b = append(b, f...)
	}
	b = le.AppendUint64(le.AppendUint64(b, r.Attributes), r.XFAM)
	for _, f := range [][]byte{r.MRTD[:], r.MRConfigID[:], r.MROwner[:], r.MROwnerConfig[:], r.RTMR[0][:], r.RTMR[1][:], r.RTMR[2][:], r.RTMR[3][:], r.ReportData[:]} {
		b = append(b, f...)
	}
	qe := &m.machine.QE
	signature, err := issue.SignRaw(qe.Key, b)
	if err != nil {
		return nil, err
	}
	point, err := qe.Key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	inner := append(qe.Report.Append(nil), qe.Signature[:]...)
	inner = append(le.AppendUint16(inner, uint16(len(qe.AuthData))), qe.AuthData...)
	inner = le.AppendUint32(le.AppendUint16(inner, certTypePCKChain), uint32(len(m.machine.Chain)))
	inner = append(inner, m.machine.Chain...)
	data := append(signature[:], point[1:]...)
	data = le.AppendUint32(le.AppendUint16(data, certTypeQEReport), uint32(len(inner)))
	data = append(data, inner...)
	return append(le.AppendUint32(b, uint32(len(data))), data...), nil
}

// Collateral returns what Intel says of the machine: its TCB and its TDX module are
// up to date, or have the status of Terms.
func (m *TDX) Collateral() (c verify.Collateral, err error) {
	if c, err = m.fleet.Collateral(m.Terms); err != nil {
		return c, err
	}
	b, err := json.Marshal(m.Terms.TCBInfo())
	if err != nil {
		return c, err
	}
	info := map[string]any{}
	if err := json.Unmarshal(b, &info); err != nil {
		return c, err
	}
	status := m.Terms.Status
	if status == 0 {
		status = verify.UpToDate
	}
	signer := map[string]any{"mrsigner": hex.EncodeToString(make([]byte, 48)), "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF"}
	info["id"], info["tdxModule"] = "TDX", signer
	info["tdxModuleIdentities"] = []any{map[string]any{
		"id": "TDX_01", "mrsigner": signer["mrsigner"], "attributes": signer["attributes"], "attributesMask": signer["attributesMask"],
		"tcbLevels": []any{map[string]any{"tcb": map[string]any{"isvsvn": 5}, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": "UpToDate"}},
	}}
	levels := []any{}
	if !m.Terms.NewerDate.IsZero() { // a level that the machine has not reached
		levels = append(levels, m.level(verify.UpToDate, 99, m.Terms.NewerDate))
	}
	info["tcbLevels"] = append(levels, m.level(status, 3, time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)))
	if c.TCBInfo, c.TCBInfoSignature, err = m.fleet.TCBSigner.SignDocument(info); err != nil {
		return c, err
	}
	terms := m.Terms
	terms.Status, terms.NewerDate = 0, time.Time{}
	identity := terms.QEIdentity()
	identity.ID = "TD_QE"
	c.QEIdentity, c.QEIdentitySignature, err = m.fleet.TCBSigner.SignDocument(identity)
	return c, err
}

// level is a level of TCB info that asks for an SVN of the third TDX component.
func (m *TDX) level(s verify.Status, svn int, date time.Time) map[string]any {
	sgx, tdx := []any{}, []any{}
	for i, c := range m.Terms.Platform.Components {
		sgx, tdx = append(sgx, map[string]any{"svn": c}), append(tdx, map[string]any{"svn": 0})
		if i == 2 {
			tdx[2] = map[string]any{"svn": svn}
		}
	}
	return map[string]any{
		"tcb":     map[string]any{"sgxtcbcomponents": sgx, "pcesvn": m.Terms.Platform.PCESVN, "tdxtcbcomponents": tdx},
		"tcbDate": date.Format(time.RFC3339), "tcbStatus": s.String(),
	}
}
