package snp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
)

var madeNow = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// A maker stands for AMD: with its keys the tests make what no published report
// shows. RSA keys take long, so all tests share them.
type maker struct {
	arkKey, askKey *rsa.PrivateKey
	ark, ask       *x509.Certificate
}

var amd = sync.OnceValues(func() (*maker, error) {
	m := new(maker)
	var err error
	if m.arkKey, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	if m.askKey, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	ark := authority("ARK-Milan", 1)
	if m.ark, err = issue(ark, ark, &m.arkKey.PublicKey, m.arkKey); err != nil {
		return nil, err
	}
	m.ask, err = issue(authority("SEV-Milan", 2), m.ark, &m.askKey.PublicKey, m.arkKey)
	return m, err
})

func name(cn string) pkix.Name {
	return pkix.Name{
		Country: []string{"US"}, Locality: []string{"Santa Clara"}, Province: []string{"CA"},
		Organization: []string{"Advanced Micro Devices"}, OrganizationalUnit: []string{"Engineering"}, CommonName: cn,
	}
}

func authority(cn string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: name(cn), NotBefore: madeNow.AddDate(-1, 0, 0), NotAfter: madeNow.AddDate(10, 0, 0),
		SignatureAlgorithm: x509.SHA384WithRSAPSS, BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func issue(t, parent *x509.Certificate, key any, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// A chip makes reports.
type chip struct {
	t       *testing.T
	m       *maker
	id      [64]byte
	product string
	tcb     uint64 // of the VCEK
	report  func(b []byte)
	revoked []int64 // serial numbers in the CRL
	crl     func(l *x509.RevocationList)
	byASK   bool // the CRL is signed by the ASK
	named   bool // the CRL is in the name of the ASK
}

func newChip(t *testing.T) *chip {
	t.Helper()
	m, err := amd()
	if err != nil {
		t.Fatal(err)
	}
	return &chip{t: t, m: m, id: [64]byte{0xc1, 63: 0xff}, product: "Milan-B1", tcb: 115<<56 | 8<<48 | 3}
}

// renewASK gives this chip's ASK other dates.
func (c *chip) renewASK(from, until time.Time) {
	t := authority("SEV-Milan", 2)
	t.NotBefore, t.NotAfter = from, until
	m := *c.m
	var err error
	if m.ask, err = issue(t, m.ark, &m.askKey.PublicKey, m.arkKey); err != nil {
		c.t.Fatal(err)
	}
	c.m = &m
}

const vcekSerial = 3

// vcek returns the certificate for a key.
func (c *chip) vcek(key *ecdsa.PublicKey) *x509.Certificate {
	t := authority("SEV-VCEK", vcekSerial)
	t.BasicConstraintsValid, t.IsCA, t.KeyUsage = false, false, 0
	add := func(id asn1.ObjectIdentifier, v any, params string) {
		value, err := asn1.MarshalWithParams(v, params)
		if err != nil {
			c.t.Fatal(err)
		}
		t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: id, Value: value})
	}
	add(kds.OidStructVersion, 1, "")
	add(kds.OidProductName1, c.product, "ia5")
	for i, id := range []asn1.ObjectIdentifier{kds.OidBlSpl, kds.OidTeeSpl, kds.OidSpl4, kds.OidSpl5, kds.OidSpl6, kds.OidSpl7, kds.OidSnpSpl, kds.OidUcodeSpl} {
		add(id, int(uint8(c.tcb>>(8*i))), "")
	}
	t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: kds.OidHwid, Value: c.id[:]})
	cert, err := issue(t, c.m.ask, key, c.m.askKey)
	if err != nil {
		c.t.Fatal(err)
	}
	return cert
}

// scene makes a report of version 3 with all its collateral, CRL included.
func (c *chip) scene() *scene {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, ReportSize)
	le := binary.LittleEndian
	le.PutUint32(b[0:], 3)
	le.PutUint64(b[8:], 1<<17|1<<16)
	le.PutUint32(b[0x34:], algorithmP384)
	for _, at := range []int{0x38, 0x180, 0x1e0, 0x1f0} { // current, reported, committed, launch
		le.PutUint64(b[at:], c.tcb)
	}
	b[0x90], b[0x188], b[0x189], b[0x18a] = 0xaa, 0x19, 0x01, 0x01 // measurement; family, model, stepping: Milan-B1
	copy(b[0x1a0:], c.id[:])
	if c.report != nil {
		c.report(b)
	}
	sum := sha512.Sum384(abi.SignedComponent(b))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err == nil {
		err = abi.SetSignature(r, s, b)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return &scene{
		raw: b, c: Collateral{VCEK: c.vcek(&key.PublicKey).Raw, ASK: c.m.ask.Raw, ARK: c.m.ark.Raw, CRL: c.list()},
		o: Options{Roots: []*x509.Certificate{c.m.ark}, Now: madeNow},
	}
}

// list signs the CRL.
func (c *chip) list() []byte {
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: madeNow.Add(-time.Hour), NextUpdate: madeNow.Add(time.Hour), SignatureAlgorithm: x509.SHA384WithRSAPSS}
	for _, serial := range c.revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: l.ThisUpdate})
	}
	if c.crl != nil {
		c.crl(l)
	}
	issuer, key := c.m.ark, c.m.arkKey
	if c.byASK {
		issuer, key = c.m.ask, c.m.askKey
	}
	if c.named {
		named := *issuer
		named.RawSubject = c.m.ask.RawSubject
		issuer = &named
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, issuer, key)
	if err != nil {
		c.t.Fatal(err)
	}
	return der
}

func TestRevocation(t *testing.T) {
	r, err := newChip(t).scene().verify()
	if err != nil || !r.Revocation || !r.CRLExpires.Equal(madeNow.Add(time.Hour)) || !r.LatestIssue.Equal(madeNow.Add(-time.Hour)) {
		t.Fatalf("got %+v, %v", r, err)
	}
	if want := (TCB{Bootloader: 3, SNP: 8, Microcode: 115}); r.Report.ReportedTCB != want || r.Report.Version != 3 || r.Product != "Milan-B1" {
		t.Errorf("got %v, version %d, %s", r.Report.ReportedTCB, r.Report.Version, r.Product)
	}
	p := &Policy{Guests: []Guest{{"core", r.Report.Measurement}}, AnyChip: true, MinTCB: r.Report.ReportedTCB}
	if d, err := Check(p, r, r.Report.ReportData, madeNow); err != nil || d.Guest != "core" {
		t.Errorf("Check: got %v, %v", d, err)
	}
	for _, row := range []struct {
		name   string
		change func(*chip)
		spoil  func(*scene)
		step   Step
		want   error
	}{
		{"ASK revoked", func(c *chip) { c.revoked = []int64{7, 2} }, nil, StepCRL, ErrRevoked},
		{"VCEK revoked", func(c *chip) { c.revoked = []int64{vcekSerial} }, nil, StepCRL, ErrRevoked},
		{"CRL expired", nil, func(s *scene) { s.o.Now = madeNow.Add(time.Hour + time.Second) }, StepCRL, ErrCRLDates},
		{"CRL not yet in force", nil, func(s *scene) { s.o.Now = madeNow.Add(-time.Hour - time.Second) }, StepCRL, ErrCRLDates},
		{"CRL of the ASK", func(c *chip) { c.byASK = true }, nil, StepCRL, ErrCRLSignature},
		{"CRL in another name", func(c *chip) { c.named = true }, nil, StepCRL, ErrCRLSignature},
		{"ASK not yet valid", func(c *chip) { c.renewASK(madeNow.Add(time.Second), madeNow.AddDate(9, 0, 0)) }, nil, StepRoot, ErrCertDates},
		{"ASK expired", func(c *chip) { c.renewASK(madeNow.AddDate(-1, 0, 0), madeNow.Add(-time.Second)) }, nil, StepRoot, ErrCertDates},
		{"CRL with its signature changed", nil, func(s *scene) { s.c.CRL[len(s.c.CRL)-1] ^= 1 }, StepCRL, ErrCRLSignature},
		{"CRL with trailing bytes", nil, func(s *scene) { s.c.CRL = append(s.c.CRL, 0) }, StepCRL, ErrCRL},
		{"chip of Turin", func(c *chip) { c.product = "Turin-B1" }, nil, StepChip, ErrProduct},
		{"product is unknown", func(c *chip) { c.product = "Bergamo" }, nil, StepChip, ErrProduct},
		{"report of another product", func(c *chip) { c.report = func(b []byte) { b[0x189] = 0x11 } }, nil, StepSignature, ErrSignature},
		{"chip id is masked", func(c *chip) { c.report = func(b []byte) { clear(b[0x1a0:0x1e0]) } }, nil, StepChip, ErrChipID},
		{"VCEK of an older TCB", func(c *chip) { c.report = func(b []byte) { b[0x187]++ } }, nil, StepChip, ErrTCB},
		{"VCEK of another machine of the same owner", nil, func(s *scene) { s.c.VCEK = newChip(t).scene().c.VCEK }, StepSignature, ErrSignature},
		{"roots of AMD", nil, func(s *scene) { s.o.Roots = Roots() }, StepRoot, ErrUnknownRoot},
	} {
		c := newChip(t)
		if row.change != nil {
			row.change(c)
		}
		s := c.scene()
		if row.spoil != nil {
			row.spoil(s)
		}
		r, err := s.verify()
		var e *Error
		if r != nil || !errors.As(err, &e) || e.Step != row.step || !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v in step %v", row.name, err, row.want, row.step)
		}
	}
}
