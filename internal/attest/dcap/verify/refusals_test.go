package verify_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

var (
	unknownOID = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999}
	critical   = pkix.Extension{Id: unknownOID, Critical: true, Value: []byte{5, 0}}
)

func setCritical(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, critical) }

func weakHash(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA384 }

func named(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject.CommonName = name }
}

func notYet(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) }

func expired(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }

// otherCurve returns a certificate with a key on P-384.
func (s *scene) otherCurve(tpl *x509.Certificate, by *issue.Authority) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	s.must(err)
	der, err := x509.CreateCertificate(rand.Reader, tpl, by.Cert, key.Public(), by.Key)
	s.must(err)
	return der
}

// twin returns an authority with the name and the subject key id of a, but
// another key.
func (s *scene) twin(a *issue.Authority) *issue.Authority {
	tpl := issue.CATemplate(now)
	tpl.Subject, tpl.SubjectKeyId = a.Cert.Subject, a.Cert.SubjectKeyId
	twin, err := s.fleet.Root.Issue(tpl)
	s.must(err)
	return twin
}

func (s *scene) otherFleet() *issue.Fleet {
	f, err := issue.NewFleet(now)
	s.must(err)
	return f
}

func TestRefusedQuotes(t *testing.T) {
	testRefusals(t, map[string]refusal{
		"cut short":  {func(s *scene) { s.quote = s.quote[:len(s.quote)-1] }, verify.StepParse, quote.ErrTruncated},
		"byte added": {func(s *scene) { s.quote = append(s.quote, 0) }, verify.StepParse, quote.ErrTrailing},
		"empty":      {func(s *scene) { s.quote = nil }, verify.StepParse, quote.ErrTruncated},
		"TDX":        {func(s *scene) { s.quote[0], s.quote[4] = 4, 0x81 }, verify.StepParse, quote.ErrTDX},
	})
}

func TestRefusedChains(t *testing.T) {
	testRefusals(t, map[string]refusal{
		"no root given":    {func(s *scene) { s.options.Roots = nil }, verify.StepPCKChain, verify.ErrNoRoot},
		"other root given": {func(s *scene) { s.options.Roots[0] = verify.IntelRoot() }, verify.StepPCKChain, verify.ErrUnknownRoot},
		"other fleet's":    {func(s *scene) { s.options.Roots[0] = s.otherFleet().Root.Cert }, verify.StepPCKChain, verify.ErrUnknownRoot},
		"simulated":        {func(s *scene) { s.options.AllowSim = false }, verify.StepPCKChain, verify.ErrSimulated},
		"two certificates": {func(s *scene) { s.chain(s.machine.PCK.Cert.Raw, s.fleet.PCKCA.Cert.Raw) }, verify.StepPCKChain, quote.ErrChainLength},
		"four certificates": {func(s *scene) {
			s.chain(s.machine.PCK.Cert.Raw, s.fleet.PCKCA.Cert.Raw, s.fleet.Root.Cert.Raw, s.fleet.Root.Cert.Raw)
		}, verify.StepPCKChain, quote.ErrChainLength},
		"no PEM":          {func(s *scene) { s.machine.Chain = []byte("x"); s.requote() }, verify.StepPCKChain, quote.ErrPEM},
		"text at the end": {func(s *scene) { s.machine.Chain = append(s.machine.Chain, 'x'); s.requote() }, verify.StepPCKChain, quote.ErrAfterChain},
		"order reversed":  {func(s *scene) { s.chain(s.fleet.Root.Cert.Raw, s.fleet.PCKCA.Cert.Raw, s.machine.PCK.Cert.Raw) }, verify.StepPCKChain, verify.ErrUnknownRoot},
		"same key, other root certificate": {func(s *scene) {
			tpl := issue.RootTemplate(now)
			der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, s.fleet.Root.Key.Public(), s.fleet.Root.Key)
			s.must(err)
			s.chain(s.machine.PCK.Cert.Raw, s.fleet.PCKCA.Cert.Raw, der)
		}, verify.StepPCKChain, verify.ErrUnknownRoot},
		"root expired":    {func(s *scene) { s.options.Now = now.Add(40 * 365 * day) }, verify.StepPCKChain, verify.ErrCertExpired},
		"before the root": {func(s *scene) { s.options.Now = now.Add(-3 * day) }, verify.StepPCKChain, verify.ErrCertNotYetValid},
		"leaf is not DER": {func(s *scene) { s.chain([]byte{0x30, 0}, s.fleet.PCKCA.Cert.Raw, s.fleet.Root.Cert.Raw) }, verify.StepPCKChain, verify.ErrCertificate},
		"bytes after the leaf": {func(s *scene) {
			s.chain(append(bytes.Clone(s.machine.PCK.Cert.Raw), 0), s.fleet.PCKCA.Cert.Raw, s.fleet.Root.Cert.Raw)
		}, verify.StepPCKChain, verify.ErrCertificate},
		"leaf on P-384": {func(s *scene) {
			tpl, err := issue.PCKTemplate(s.platform, now)
			s.must(err)
			s.chain(s.otherCurve(tpl, s.fleet.PCKCA), s.fleet.PCKCA.Cert.Raw, s.fleet.Root.Cert.Raw)
		}, verify.StepPCKChain, verify.ErrCertKey},
		"CA on P-384": {func(s *scene) {
			s.chain(s.machine.PCK.Cert.Raw, s.otherCurve(issue.CATemplate(now), s.fleet.Root), s.fleet.Root.Cert.Raw)
		}, verify.StepPCKChain, verify.ErrCertKey},
		"leaf with SHA-384": {func(s *scene) { s.reissuePCK(s.fleet.PCKCA, weakHash) }, verify.StepPCKChain, verify.ErrCertAlgorithm},
		"CA with SHA-384":   {func(s *scene) { s.reissueCA(weakHash) }, verify.StepPCKChain, verify.ErrCertAlgorithm},
		"leaf of the root":  {func(s *scene) { s.reissuePCK(s.fleet.Root, func(*x509.Certificate) {}) }, verify.StepPCKChain, verify.ErrCertIssuer},
		"leaf of a twin CA": {func(s *scene) { s.reissuePCK(s.twin(s.fleet.PCKCA), func(*x509.Certificate) {}) }, verify.StepPCKChain, verify.ErrCertSignature},
		"CA of another fleet": {func(s *scene) {
			s.chain(s.machine.PCK.Cert.Raw, s.otherFleet().PCKCA.Cert.Raw, s.fleet.Root.Cert.Raw)
		}, verify.StepPCKChain, verify.ErrCertSignature},
		"leaf not yet valid":  {func(s *scene) { s.reissuePCK(s.fleet.PCKCA, notYet) }, verify.StepPCKChain, verify.ErrCertNotYetValid},
		"leaf expired":        {func(s *scene) { s.reissuePCK(s.fleet.PCKCA, expired) }, verify.StepPCKChain, verify.ErrCertExpired},
		"leaf expired, grace": {func(s *scene) { s.options.CollateralGrace = day; s.reissuePCK(s.fleet.PCKCA, expired) }, verify.StepPCKChain, verify.ErrCertExpired},
		"CA not yet valid":    {func(s *scene) { s.reissueCA(notYet) }, verify.StepPCKChain, verify.ErrCertNotYetValid},
		"CA expired":          {func(s *scene) { s.reissueCA(expired) }, verify.StepPCKChain, verify.ErrCertExpired},
		"leaf, critical":      {func(s *scene) { s.reissuePCK(s.fleet.PCKCA, setCritical) }, verify.StepPCKChain, verify.ErrCertExtension},
		"CA, critical":        {func(s *scene) { s.reissueCA(setCritical) }, verify.StepPCKChain, verify.ErrCertExtension},
		"CA is none":          {func(s *scene) { s.reissueCA(func(c *x509.Certificate) { c.IsCA, c.MaxPathLenZero = false, false }) }, verify.StepPCKChain, verify.ErrCertNotCA},
		"CA says nothing":     {func(s *scene) { s.reissueCA(func(c *x509.Certificate) { c.BasicConstraintsValid = false }) }, verify.StepPCKChain, verify.ErrCertNotCA},
		"leaf is a CA":        {func(s *scene) { s.reissuePCK(s.fleet.PCKCA, func(c *x509.Certificate) { c.IsCA = true }) }, verify.StepPCKChain, verify.ErrCertIsCA},
		"leaf may not sign": {func(s *scene) {
			s.reissuePCK(s.fleet.PCKCA, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })
		}, verify.StepPCKChain, verify.ErrCertKeyUsage},
		"CA may not issue":     {func(s *scene) { s.reissueCA(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }) }, verify.StepPCKChain, verify.ErrCertKeyUsage},
		"CA may not sign CRLs": {func(s *scene) { s.reissueCA(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }) }, verify.StepPCKChain, verify.ErrCertKeyUsage},
		"leaf of another role": {func(s *scene) { s.reissuePCK(s.fleet.PCKCA, named("SGX TCB Signing")) }, verify.StepPCKChain, verify.ErrCertRole},
		"CA of another role":   {func(s *scene) { s.reissueCA(named("SGX TCB Signing CA")) }, verify.StepPCKChain, verify.ErrCertRole},
		"SGX extension twice": {func(s *scene) {
			near := asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 2}
			s.reissuePCK(s.fleet.PCKCA, func(c *x509.Certificate) {
				c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: near, Value: c.ExtraExtensions[0].Value})
			})
			old, err := asn1.Marshal(near)
			s.must(err)
			sgx, err := asn1.Marshal(issue.OID())
			s.must(err)
			s.chain(s.resigned(s.machine.PCK.Cert.Raw, s.fleet.PCKCA, old, sgx), s.fleet.PCKCA.Cert.Raw, s.fleet.Root.Cert.Raw)
		}, verify.StepPCKChain, verify.ErrCertificate},
		"leaf says Intel": {func(s *scene) {
			s.options.AllowSim = false
			s.reissuePCK(s.fleet.PCKCA, func(c *x509.Certificate) { c.Subject.Organization = []string{"Intel Corporation"} })
		}, verify.StepPCKChain, verify.ErrSimulated},
	})
}

func TestRefusedCRLs(t *testing.T) {
	rootCRL := func(edit func(*x509.RevocationList)) func(s *scene) {
		return func(s *scene) { s.collateral.RootCRL = s.crl(s.fleet.Root, edit) }
	}
	pckCRL := func(edit func(*x509.RevocationList)) func(s *scene) {
		return func(s *scene) { s.collateral.PCKCRL = s.crl(s.fleet.PCKCA, edit) }
	}
	without := func(i int) func(e []asn1.RawValue) []asn1.RawValue {
		return func(e []asn1.RawValue) []asn1.RawValue { return append(e[:i:i], e[i+1:]...) }
	}
	next := func(at time.Time) func(l *x509.RevocationList) {
		return func(l *x509.RevocationList) { l.ThisUpdate, l.NextUpdate = now.Add(-2*day), at }
	}
	from := func(at time.Time) func(l *x509.RevocationList) {
		return func(l *x509.RevocationList) { l.ThisUpdate = at }
	}
	deltaIndicator := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}
	renewedCA := func(edit func(s *scene, tpl *x509.Certificate) *issue.Authority) func(s *scene) {
		return func(s *scene) {
			by := edit(s, issue.CATemplate(now))
			s.collateral.PCKCRLIssuerChain = quote.EncodeChain(by.Cert.Raw, s.fleet.Root.Cert.Raw)
		}
	}
	const step = verify.StepCRL
	testRefusals(t, map[string]refusal{
		"no root CRL":            {func(s *scene) { s.collateral.RootCRL = nil }, step, verify.ErrRootCRLMissing},
		"no PCK CRL":             {func(s *scene) { s.collateral.PCKCRL = []byte{} }, step, verify.ErrPCKCRLMissing},
		"too long":               {func(s *scene) { s.collateral.RootCRL = make([]byte, verify.MaxCRL+1) }, step, verify.ErrCRLTooLong},
		"not DER":                {func(s *scene) { s.collateral.RootCRL = []byte("x") }, step, verify.ErrCRL},
		"bytes after it":         {func(s *scene) { s.collateral.PCKCRL = append(s.collateral.PCKCRL, 0) }, step, verify.ErrCRL},
		"version 1":              {func(s *scene) { s.collateral.PCKCRL = s.crlElements(s.fleet.PCKCA, without(0)) }, step, verify.ErrCRL},
		"no extensions":          {func(s *scene) { s.collateral.PCKCRL = s.crlElements(s.fleet.PCKCA, without(5)) }, step, verify.ErrCRLNumber},
		"no next update":         {func(s *scene) { s.collateral.PCKCRL = s.crlElements(s.fleet.PCKCA, without(4)) }, step, verify.ErrCRLNextUpdate},
		"SHA-384":                {rootCRL(func(l *x509.RevocationList) { l.SignatureAlgorithm = x509.ECDSAWithSHA384 }), step, verify.ErrCRLAlgorithm},
		"CRLs exchanged":         {func(s *scene) { c := &s.collateral; c.RootCRL, c.PCKCRL = c.PCKCRL, c.RootCRL }, step, verify.ErrCRLIssuer},
		"PCK CRL twice":          {func(s *scene) { s.collateral.RootCRL = s.collateral.PCKCRL }, step, verify.ErrCRLIssuer},
		"root CRL twice":         {func(s *scene) { s.collateral.PCKCRL = s.collateral.RootCRL }, step, verify.ErrCRLIssuer},
		"another fleet's":        {func(s *scene) { s.collateral.RootCRL = s.crl(s.otherFleet().Root, func(*x509.RevocationList) {}) }, step, verify.ErrCRLIssuerKey},
		"signed by a twin":       {func(s *scene) { s.collateral.PCKCRL = s.crl(s.twin(s.fleet.PCKCA), func(*x509.RevocationList) {}) }, step, verify.ErrCRLSignature},
		"bit flipped at the end": {func(s *scene) { s.collateral.PCKCRL[len(s.collateral.PCKCRL)-1] ^= 1 }, step, verify.ErrCRLSignature},
		"root CRL to come":       {rootCRL(from(now.Add(time.Second))), step, verify.ErrCRLNotYetValid},
		"PCK CRL to come":        {pckCRL(from(now.Add(time.Second))), step, verify.ErrCRLNotYetValid},
		"root CRL expired":       {rootCRL(next(now.Add(-time.Second))), step, verify.ErrCRLExpired},
		"PCK CRL expired":        {pckCRL(next(now.Add(-time.Second))), step, verify.ErrCRLExpired},
		"beyond grace":           {func(s *scene) { s.options.CollateralGrace = day; pckCRL(next(now.Add(-day - time.Second)))(s) }, step, verify.ErrCRLExpired},
		"negative grace":         {func(s *scene) { s.options.CollateralGrace = -day; pckCRL(next(now.Add(-time.Second)))(s) }, step, verify.ErrCRLExpired},
		"delta CRL":              {pckCRL(func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{deltaIndicator} }), step, verify.ErrCRLExtension},
		"unknown extension":      {rootCRL(func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{critical} }), step, verify.ErrCRLExtension},
		"in an entry": {pckCRL(func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(5), RevocationTime: now, ExtraExtensions: []pkix.Extension{critical}}}
		}), step, verify.ErrCRLExtension},
		"CA revoked": {func(s *scene) {
			s.terms.RevokedCAs = []*big.Int{big.NewInt(1), s.fleet.PCKCA.Cert.SerialNumber}
			s.endorse()
		}, step, verify.ErrIntermediateRevoked},
		"leaf revoked": {func(s *scene) {
			s.terms.RevokedPCKs = []*big.Int{s.machine.PCK.Cert.SerialNumber, big.NewInt(1)}
			s.endorse()
		}, step, verify.ErrPCKRevoked},
		"issuer chain: not PEM": {func(s *scene) { s.collateral.PCKCRLIssuerChain = []byte("x") }, step, verify.ErrCRLIssuerChain},
		"issuer chain: other root": {func(s *scene) {
			s.collateral.PCKCRLIssuerChain = quote.EncodeChain(s.fleet.PCKCA.Cert.Raw, verify.IntelRoot().Raw)
		}, step, verify.ErrCRLIssuerChain},
		"issuer chain: TCB signer": {func(s *scene) { s.collateral.PCKCRLIssuerChain = s.collateral.TCBInfoIssuerChain }, step, verify.ErrCRLIssuerChain},
		"issuer chain: other name": {renewedCA(func(s *scene, tpl *x509.Certificate) *issue.Authority {
			tpl.Subject.CommonName += " 2"
			der, err := x509.CreateCertificate(rand.Reader, tpl, s.fleet.Root.Cert, s.fleet.PCKCA.Key.Public(), s.fleet.Root.Key)
			s.must(err)
			return &issue.Authority{Cert: &x509.Certificate{Raw: der}}
		}), step, verify.ErrCRLIssuerChain},
		"issuer chain: other key": {renewedCA(func(s *scene, tpl *x509.Certificate) *issue.Authority {
			a, err := s.fleet.Root.Issue(tpl)
			s.must(err)
			return a
		}), step, verify.ErrCRLIssuerChain},
		"issuer chain: of another root": {renewedCA(func(s *scene, tpl *x509.Certificate) *issue.Authority { return s.otherFleet().PCKCA }), step, verify.ErrCRLIssuerChain},
		"issuer chain: revoked": {func(s *scene) {
			tpl := *s.fleet.PCKCA.Cert
			tpl.SerialNumber = big.NewInt(99)
			der, err := x509.CreateCertificate(rand.Reader, &tpl, s.fleet.Root.Cert, s.fleet.PCKCA.Key.Public(), s.fleet.Root.Key)
			s.must(err)
			s.terms.RevokedCAs = []*big.Int{big.NewInt(99)}
			s.endorse()
			s.collateral.PCKCRLIssuerChain = quote.EncodeChain(der, s.fleet.Root.Cert.Raw)
		}, step, verify.ErrCRLIssuerChain},
	})
}

func TestRefusedExtensions(t *testing.T) {
	// items edits the items of the extension, tcb those of its item 2.
	items := func(edit func([]issue.Item) any) func(s *scene) {
		return func(s *scene) { s.extension(edit(issue.Items(s.platform))) }
	}
	tcb := func(edit func([]issue.Item) any) func(s *scene) {
		return items(func(l []issue.Item) any { l[1].Value = edit(l[1].Value.([]issue.Item)); return l })
	}
	set := func(i int, value any) func([]issue.Item) any {
		return func(l []issue.Item) any { l[i].Value = value; return l }
	}
	drop := func(i int) func([]issue.Item) any {
		return func(l []issue.Item) any { return append(l[:i:i], l[i+1:]...) }
	}
	twice := func(i int) func([]issue.Item) any {
		return func(l []issue.Item) any { return append(l, l[i]) }
	}
	add := func(item issue.Item) func([]issue.Item) any {
		return func(l []issue.Item) any { return append(l, item) }
	}
	triple := func(l []issue.Item) any {
		type item3 struct {
			ID    asn1.ObjectIdentifier
			Value any
			More  int
		}
		var out []item3
		for _, i := range l {
			out = append(out, item3{i.ID, i.Value, 1})
		}
		return out
	}
	const step = verify.StepSGXExtension
	testRefusals(t, map[string]refusal{
		"none": {func(s *scene) { s.reissuePCK(s.fleet.PCKCA, func(c *x509.Certificate) { c.ExtraExtensions = nil }) }, step, verify.ErrExtensionMissing},
		"under another OID": {func(s *scene) {
			s.reissuePCK(s.fleet.PCKCA, func(c *x509.Certificate) { c.ExtraExtensions[0].Id = issue.OID(1) })
		}, step, verify.ErrExtensionMissing},
		"not DER": {func(s *scene) { s.extension([]byte("x")) }, step, verify.ErrExtensionFormat},
		"bytes after it": {func(s *scene) {
			der, err := issue.MarshalExtension(s.platform)
			s.must(err)
			s.extension(append(der, 5, 0))
		}, step, verify.ErrExtensionFormat},
		"empty":               {func(s *scene) { s.extension([]byte{0x30, 0}) }, step, verify.ErrExtensionIncomplete},
		"three in a pair":     {items(triple), step, verify.ErrExtensionFormat},
		"three, within":       {tcb(triple), step, verify.ErrExtensionFormat},
		"no OID":              {items(func(l []issue.Item) any { return [][]int{{1, 2}} }), step, verify.ErrExtensionFormat},
		"PPID twice":          {items(twice(0)), step, verify.ErrExtensionTwice},
		"FMSPC twice":         {items(twice(3)), step, verify.ErrExtensionTwice},
		"component twice":     {tcb(twice(3)), step, verify.ErrExtensionTwice},
		"PCESVN twice":        {tcb(twice(16)), step, verify.ErrExtensionTwice},
		"eighth item":         {items(add(issue.Item{ID: issue.OID(8), Value: 1})), step, verify.ErrExtensionUnknown},
		"item zero":           {items(add(issue.Item{ID: issue.OID(0), Value: 1})), step, verify.ErrExtensionUnknown},
		"foreign item":        {items(add(issue.Item{ID: unknownOID, Value: 1})), step, verify.ErrExtensionUnknown},
		"nineteenth in TCB":   {tcb(add(issue.Item{ID: issue.OID(2, 19), Value: 1})), step, verify.ErrExtensionUnknown},
		"top item in TCB":     {tcb(add(issue.Item{ID: issue.OID(1), Value: 1})), step, verify.ErrExtensionUnknown},
		"no PPID":             {items(drop(0)), step, verify.ErrExtensionIncomplete},
		"no TCB":              {items(drop(1)), step, verify.ErrExtensionIncomplete},
		"no PCEID":            {items(drop(2)), step, verify.ErrExtensionIncomplete},
		"no FMSPC":            {items(drop(3)), step, verify.ErrExtensionIncomplete},
		"no type":             {items(drop(4)), step, verify.ErrExtensionIncomplete},
		"no instance":         {items(drop(5)), step, verify.ErrExtensionIncomplete},
		"no configuration":    {items(drop(6)), step, verify.ErrExtensionIncomplete},
		"no component 16":     {tcb(drop(15)), step, verify.ErrExtensionIncomplete},
		"no PCESVN":           {tcb(drop(16)), step, verify.ErrExtensionIncomplete},
		"no CPUSVN":           {tcb(drop(17)), step, verify.ErrExtensionIncomplete},
		"PPID of 15 bytes":    {items(set(0, make([]byte, 15))), step, verify.ErrExtensionValue},
		"PPID of 17 bytes":    {items(set(0, make([]byte, 17))), step, verify.ErrExtensionValue},
		"PPID as text":        {items(set(0, "0123456789abcdef")), step, verify.ErrExtensionValue},
		"PCEID as number":     {items(set(2, 0)), step, verify.ErrExtensionValue},
		"type as integer":     {items(set(4, 1)), step, verify.ErrExtensionValue},
		"type 3":              {items(set(4, asn1.Enumerated(3))), step, verify.ErrExtensionValue},
		"component 256":       {tcb(set(0, 256)), step, verify.ErrExtensionValue},
		"component below 0":   {tcb(set(0, -1)), step, verify.ErrExtensionValue},
		"component as octets": {tcb(set(0, []byte{1})), step, verify.ErrExtensionValue},
		"PCESVN 65536":        {tcb(set(16, 65536)), step, verify.ErrExtensionValue},
		"huge PCESVN":         {tcb(set(16, new(big.Int).Lsh(big.NewInt(1), 100))), step, verify.ErrExtensionValue},
		"flag as number":      {items(set(6, []issue.Item{{ID: issue.OID(7, 1), Value: 1}})), step, verify.ErrExtensionValue},
		"fourth flag":         {items(set(6, []issue.Item{{ID: issue.OID(7, 4), Value: true}})), step, verify.ErrExtensionUnknown},
	})
}

func TestRefusedSignatures(t *testing.T) {
	flip := func(q *quote.Quote, b *[64]byte) { b[63] ^= 1 }
	testRefusals(t, map[string]refusal{
		"QE signature":          {func(s *scene) { s.parsed(func(q *quote.Quote) { flip(q, &q.QESignature) }) }, verify.StepQEReport, verify.ErrQEReportSignature},
		"QE signature of zeros": {func(s *scene) { s.parsed(func(q *quote.Quote) { q.QESignature = [64]byte{} }) }, verify.StepQEReport, verify.ErrQEReportSignature},
		"QE signature r >= n": {func(s *scene) {
			s.parsed(func(q *quote.Quote) { copy(q.QESignature[:32], bytes.Repeat([]byte{0xff}, 32)) })
		}, verify.StepQEReport, verify.ErrQEReportSignature},
		"QE report": {func(s *scene) { s.parsed(func(q *quote.Quote) { q.QEReport.ISVSVN++ }) }, verify.StepQEReport, verify.ErrQEReportSignature},
		"QE of another machine": {func(s *scene) {
			other, err := s.fleet.NewMachine(issue.NewPlatform(), now)
			s.must(err)
			other.Chain = s.machine.Chain
			s.machine = other
			s.requote()
		}, verify.StepQEReport, verify.ErrQEReportSignature},
		"other attestation key": {func(s *scene) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			s.must(err)
			s.machine.QE.Key = key
			s.requote()
		}, verify.StepQEReport, verify.ErrQEReportData},
		"other auth data":          {func(s *scene) { s.parsed(func(q *quote.Quote) { q.AuthData[0]++ }) }, verify.StepQEReport, verify.ErrQEReportData},
		"auth data added":          {func(s *scene) { s.parsed(func(q *quote.Quote) { q.AuthData = append(q.AuthData, 0) }) }, verify.StepQEReport, verify.ErrQEReportData},
		"auth data removed":        {func(s *scene) { s.parsed(func(q *quote.Quote) { q.AuthData = nil }) }, verify.StepQEReport, verify.ErrQEReportData},
		"bytes after the hash":     {func(s *scene) { s.qe(func(r *quote.Report) { r.ReportData[32] = 1 }) }, verify.StepQEReport, verify.ErrQEReportData},
		"last byte after the hash": {func(s *scene) { s.qe(func(r *quote.Report) { r.ReportData[63] = 1 }) }, verify.StepQEReport, verify.ErrQEReportData},
		"hash of zeros":            {func(s *scene) { s.qe(func(r *quote.Report) { r.ReportData = [64]byte{} }) }, verify.StepQEReport, verify.ErrQEReportData},
		"key off the curve": {func(s *scene) {
			sum := sha256.Sum256(append(make([]byte, 64), s.machine.QE.AuthData...))
			s.qe(func(r *quote.Report) { r.ReportData = [64]byte{}; copy(r.ReportData[:], sum[:]) })
			s.parsed(func(q *quote.Quote) { q.AttestationKey = [64]byte{} })
		}, verify.StepQuoteSignature, verify.ErrAttestationKey},
		"quote signature":          {func(s *scene) { s.parsed(func(q *quote.Quote) { flip(q, &q.Signature) }) }, verify.StepQuoteSignature, verify.ErrQuoteSignature},
		"quote signature of zeros": {func(s *scene) { s.parsed(func(q *quote.Quote) { q.Signature = [64]byte{} }) }, verify.StepQuoteSignature, verify.ErrQuoteSignature},
		"report data":              {func(s *scene) { s.parsed(func(q *quote.Quote) { q.Report.ReportData[0]++ }) }, verify.StepQuoteSignature, verify.ErrQuoteSignature},
		"debug flag":               {func(s *scene) { s.parsed(func(q *quote.Quote) { q.Report.Attributes.Flags ^= quote.FlagDebug }) }, verify.StepQuoteSignature, verify.ErrQuoteSignature},
		"user data in the header":  {func(s *scene) { s.parsed(func(q *quote.Quote) { q.Header.UserData[0]++ }) }, verify.StepQuoteSignature, verify.ErrQuoteSignature},
		"signatures exchanged":     {func(s *scene) { s.parsed(func(q *quote.Quote) { q.Signature = q.QESignature }) }, verify.StepQuoteSignature, verify.ErrQuoteSignature},
	})
}

// TestEveryErrorIsProvoked compares the errors that the package names with those
// that the tests expect.
func TestEveryErrorIsProvoked(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, name := range []string{"refusals_test.go", "refused_documents_test.go"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(b)
	}
	named := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Err") {
			return true
		}
		named++
		if name := "verify." + spec.Names[0].Name + "}"; !strings.Contains(tests.String(), name) {
			t.Errorf("no refusal expects %s", name)
		}
		return true
	})
	if named < 50 {
		t.Errorf("got %d named errors, want at least 50", named)
	}
}

func TestErrorText(t *testing.T) {
	_, err := newScene(t).verifyWith(func(s *scene) { s.collateral.RootCRL = nil })
	if got, want := err.Error(), "verify quote: crl: root CRL is missing"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := verify.Step(99).String(); got != "step 99" {
		t.Errorf("unknown step: got %q", got)
	}
	if errors.Unwrap(err) != verify.ErrRootCRLMissing {
		t.Errorf("Unwrap: got %v", errors.Unwrap(err))
	}
}

func (s *scene) verifyWith(change func(s *scene)) (verify.Result, error) {
	change(s)
	return s.verify()
}
