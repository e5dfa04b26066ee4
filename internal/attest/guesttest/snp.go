package guesttest

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
	"math/big"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"

	"github.com/ehsm-kms/ehsm/internal/attest/snp"
)

// vcekSerial is that of the chip's certificate.
const vcekSerial = 3

// An SNP is a chip named Milan that makes reports of SEV-SNP guests.
type SNP struct {
	Root    *x509.Certificate // the ARK
	ID      [64]byte
	TCB     snp.TCB
	Revoked bool // the CRL names the chip's certificate
	NoCRL   bool

	now            time.Time
	arkKey, askKey *rsa.PrivateKey
	key            *ecdsa.PrivateKey
	ask, vcek      *x509.Certificate
}

// NewSNP makes a chip whose certificates are in force at now.
func NewSNP(now time.Time) (*SNP, error) {
	c := &SNP{ID: [64]byte{0xc1, 63: 0xff}, TCB: snp.TCB{Bootloader: 3, SNP: 8, Microcode: 115}, now: now}
	var err error
	for _, k := range []**rsa.PrivateKey{&c.arkKey, &c.askKey} {
		if *k, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return nil, err
		}
	}
	if c.key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader); err != nil {
		return nil, err
	}
	ark := c.authority("ARK-Milan", 1)
	if c.Root, err = sign(ark, ark, &c.arkKey.PublicKey, c.arkKey); err != nil {
		return nil, err
	}
	if c.ask, err = sign(c.authority("SEV-Milan", 2), c.Root, &c.askKey.PublicKey, c.arkKey); err != nil {
		return nil, err
	}
	c.vcek, err = c.certificate()
	return c, err
}

func (c *SNP) authority(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{
			Country: []string{"US"}, Locality: []string{"Santa Clara"}, Province: []string{"CA"},
			Organization: []string{"Advanced Micro Devices"}, OrganizationalUnit: []string{"Engineering"}, CommonName: name,
		},
		NotBefore: c.now.AddDate(-1, 0, 0), NotAfter: c.now.AddDate(10, 0, 0),
		SignatureAlgorithm: x509.SHA384WithRSAPSS, BasicConstraintsValid: true, IsCA: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func sign(t, parent *x509.Certificate, key any, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// tcb is TCB as reports have it.
func (c *SNP) tcb() uint64 {
	return uint64(c.TCB.Microcode)<<56 | uint64(c.TCB.SNP)<<48 | uint64(c.TCB.TEE)<<8 | uint64(c.TCB.Bootloader)
}

// certificate makes the VCEK.
func (c *SNP) certificate() (*x509.Certificate, error) {
	t := c.authority("SEV-VCEK", vcekSerial)
	t.BasicConstraintsValid, t.IsCA, t.KeyUsage = false, false, 0
	add := func(id asn1.ObjectIdentifier, v any, params string) error {
		value, err := asn1.MarshalWithParams(v, params)
		t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: id, Value: value})
		return err
	}
	if err := add(kds.OidStructVersion, 1, ""); err != nil {
		return nil, err
	}
	if err := add(kds.OidProductName1, "Milan-B1", "ia5"); err != nil {
		return nil, err
	}
	for i, id := range []asn1.ObjectIdentifier{kds.OidBlSpl, kds.OidTeeSpl, kds.OidSpl4, kds.OidSpl5, kds.OidSpl6, kds.OidSpl7, kds.OidSnpSpl, kds.OidUcodeSpl} {
		if err := add(id, int(uint8(c.tcb()>>(8*i))), ""); err != nil {
			return nil, err
		}
	}
	t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: kds.OidHwid, Value: c.ID[:]})
	return sign(t, c.ask, &c.key.PublicKey, c.askKey)
}

// Measured is what Report says of the guest: MEASUREMENT and HOST_DATA.
func Measured() (measurement [48]byte, hostData [32]byte) { return [48]byte{0xaa}, [32]byte{0xbb} }

// Report signs a report of version 3, of a guest at VMPL 0, not in debug mode. edit,
// if not nil, changes it before it is signed.
func (c *SNP) Report(reportData [64]byte, edit func([]byte)) ([]byte, error) {
	const algorithmP384 = 1
	b := make([]byte, snp.ReportSize)
	le := binary.LittleEndian
	le.PutUint32(b[0:], 3)
	le.PutUint64(b[8:], 1<<17|1<<16)
	le.PutUint32(b[0x34:], algorithmP384)
	copy(b[0x50:], reportData[:])
	measurement, hostData := Measured()
	copy(b[0x90:], measurement[:])
	copy(b[0xc0:], hostData[:])
	for _, at := range []int{0x38, 0x180, 0x1e0, 0x1f0} { // current, reported, committed, launch
		le.PutUint64(b[at:], c.tcb())
	}
	b[0x188], b[0x189], b[0x18a] = 0x19, 0x01, 0x01 // family, model, stepping: Milan-B1
	copy(b[0x1a0:], c.ID[:])
	if edit != nil {
		edit(b)
	}
	sum := sha512.Sum384(abi.SignedComponent(b))
	r, s, err := ecdsa.Sign(rand.Reader, c.key, sum[:])
	if err != nil {
		return nil, err
	}
	return b, abi.SetSignature(r, s, b)
}

// Collateral returns what AMD says of the chip.
func (c *SNP) Collateral() (snp.Collateral, error) {
	all := snp.Collateral{VCEK: c.vcek.Raw, ASK: c.ask.Raw, ARK: c.Root.Raw}
	if c.NoCRL {
		return all, nil
	}
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: c.now.Add(-time.Hour), NextUpdate: c.now.Add(time.Hour), SignatureAlgorithm: x509.SHA384WithRSAPSS}
	if c.Revoked {
		l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(vcekSerial), RevocationTime: l.ThisUpdate}}
	}
	var err error
	all.CRL, err = x509.CreateRevocationList(rand.Reader, l, c.Root, c.arkKey)
	return all, err
}
