package tdx

import (
	"crypto/x509"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
)

func at8(i int, v byte) func([]byte) []byte {
	return func(b []byte) []byte { b[i] = v; return b }
}

func TestRefusals(t *testing.T) {
	const sig = headerSize + body10Size + 4 // where the signature data starts
	const inner = sig + fixedSigSize
	const authLength, innerCert = inner + quote.ReportSize + keySize, inner + quote.ReportSize + keySize + 2 + 32
	raw := func(f func([]byte) []byte) func(*scene) { return func(s *scene) { s.raw = f } }
	member := func(name string, value any) func(*scene) {
		return func(s *scene) { s.tcbInfo = func(m map[string]any) { m[name] = value } }
	}
	without := func(name string) func(*scene) {
		return func(s *scene) { s.tcbInfo = func(m map[string]any) { delete(m, name) } }
	}
	spoil := func(f func(*verify.Collateral)) func(*scene) { return func(s *scene) { s.spoil = f } }
	for _, row := range []struct {
		name   string
		change func(*scene)
		step   verify.Step
		want   error
	}{
		{"empty", raw(func([]byte) []byte { return nil }), verify.StepParse, ErrTruncated},
		{"too long", raw(func(b []byte) []byte { return append(b, make([]byte, MaxSize)...) }), verify.StepParse, ErrTooLong},
		{"header cut", raw(func(b []byte) []byte { return b[:headerSize-1] }), verify.StepParse, ErrTruncated},
		{"body cut", raw(func(b []byte) []byte { return b[:sig-5] }), verify.StepParse, ErrTruncated},
		{"no signature data", raw(func(b []byte) []byte { return b[:sig] }), verify.StepParse, ErrTruncated},
		{"signature data cut", raw(func(b []byte) []byte { return b[:len(b)-1] }), verify.StepParse, ErrTruncated},
		{"signature data of 4 GiB", raw(func(b []byte) []byte { copy(b[sig-4:], "\xff\xff\xff\xff"); return b }), verify.StepParse, ErrTruncated},
		{"signature data of nothing", raw(func(b []byte) []byte { copy(b[sig-4:], "\x00\x00\x00\x00"); return append(b[:sig:sig], 0) }), verify.StepParse, ErrTruncated},
		{"trailing byte", raw(func(b []byte) []byte { return append(b, 1) }), verify.StepParse, ErrTrailing},
		{"zeros and a byte", raw(func(b []byte) []byte { return append(b, 0, 0, 1) }), verify.StepParse, ErrTrailing},
		{"version 3", raw(at8(0, 3)), verify.StepParse, ErrVersion},
		{"version 6", raw(at8(0, 6)), verify.StepParse, ErrVersion},
		{"key type", raw(at8(2, 3)), verify.StepParse, ErrKeyType},
		{"SGX", raw(at8(4, 0)), verify.StepParse, ErrTEEType},
		{"vendor", raw(at8(12, 0)), verify.StepParse, ErrVendor},
		{"version 4 as 5", raw(at8(0, 5)), verify.StepParse, ErrBodyType},
		{"version 5 with an SGX body", func(s *scene) { s.version, s.raw = version5, at8(headerSize, 1) }, verify.StepParse, ErrBodyType},
		{"version 5 with another size", func(s *scene) { s.version, s.raw = version5, at8(headerSize+2, 0x49) }, verify.StepParse, ErrBodyType},
		{"version 5, 1.0 as 1.5", func(s *scene) { s.version, s.raw = version5, at8(headerSize, bodyType15) }, verify.StepParse, ErrBodyType},
		{"certification data of another type", raw(at8(sig+2*keySize, 5)), verify.StepParse, ErrCertType},
		{"certification data, length", raw(at8(sig+2*keySize+2, 0xff)), verify.StepParse, ErrCertLength},
		{"authentication data, length", raw(at8(authLength+1, 0xff)), verify.StepParse, ErrCertLength},
		{"certificates of another type", raw(at8(innerCert, 3)), verify.StepParse, ErrCertType},
		{"certificates, length", raw(at8(innerCert+2, 0xff)), verify.StepParse, ErrCertLength},
		{"quoting enclave's reserved byte", raw(at8(inner+20, 1)), verify.StepParse, quote.ErrReserved},

		{"no root", func(s *scene) { s.options.Roots = nil }, verify.StepPCKChain, verify.ErrNoRoot},
		{"another root", func(s *scene) { s.options.Roots = []*x509.Certificate{verify.IntelRoot()} }, verify.StepPCKChain, verify.ErrUnknownRoot},
		{"simulated, however much it is allowed", simulated, verify.StepPCKChain, verify.ErrSimulated},
		{"certificates expired", func(s *scene) { s.options.Now = s.options.Now.AddDate(40, 0, 0) }, verify.StepPCKChain, verify.ErrCertExpired},
		{"no root CRL", spoil(func(c *verify.Collateral) { c.RootCRL = nil }), verify.StepCRL, verify.ErrRootCRLMissing},
		{"no PCK CRL", spoil(func(c *verify.Collateral) { c.PCKCRL = nil }), verify.StepCRL, verify.ErrPCKCRLMissing},
		{"CRLs exchanged", spoil(func(c *verify.Collateral) { c.RootCRL, c.PCKCRL = c.PCKCRL, c.RootCRL }), verify.StepCRL, verify.ErrCRLIssuer},
		{"machine revoked", func(s *scene) { s.terms.RevokedPCKs = []*big.Int{s.machine.PCK.Cert.SerialNumber} }, verify.StepCRL, verify.ErrPCKRevoked},
		{"PCK CA revoked", func(s *scene) { s.terms.RevokedCAs = []*big.Int{s.fleet.PCKCA.Cert.SerialNumber} }, verify.StepCRL, verify.ErrIntermediateRevoked},
		{"CRL not yet in force", func(s *scene) { s.terms.Issued = sceneNow.Add(time.Second) }, verify.StepCRL, verify.ErrCRLNotYetValid},
		{"CRL expired", func(s *scene) { s.terms.Next = sceneNow.Add(-time.Second) }, verify.StepCRL, verify.ErrCRLExpired},
		{"quoting enclave's report changed", raw(at8(inner+64, 1)), verify.StepQEReport, verify.ErrQEReportSignature},
		{"another attestation key", otherKey, verify.StepQEReport, verify.ErrQEReportData},
		{"measurement changed", raw(at8(headerSize+136, 0xab)), verify.StepQuoteSignature, verify.ErrQuoteSignature},
		{"user data changed", raw(at8(28, 1)), verify.StepQuoteSignature, verify.ErrQuoteSignature},

		{"TCB info of SGX", member("id", "SGX"), verify.StepTCBInfo, verify.ErrDocumentID},
		{"TCB info of version 2", member("version", 2), verify.StepTCBInfo, verify.ErrDocumentVersion},
		{"TCB info expired", member("nextUpdate", issue.Time(sceneNow.Add(-time.Second))), verify.StepTCBInfo, verify.ErrDocumentExpired},
		{"TCB info not yet valid", member("issueDate", issue.Time(sceneNow.Add(time.Second))), verify.StepTCBInfo, verify.ErrDocumentNotYetValid},
		{"TCB info, TCB type", member("tcbType", 1), verify.StepTCBInfo, verify.ErrTCBType},
		{"another FMSPC", member("fmspc", "00606a000000"), verify.StepTCBInfo, verify.ErrFMSPC},
		{"another PCEID", member("pceId", "0001"), verify.StepTCBInfo, verify.ErrPCEID},
		{"evaluation number", func(s *scene) { s.options.MinTCBEvaluation = 21 }, verify.StepTCBInfo, verify.ErrEvaluationNumber},
		{"TCB info changed", spoil(func(c *verify.Collateral) { c.TCBInfo[40] ^= 1 }), verify.StepTCBInfo, verify.ErrSignatureMismatch},
		{"TCB info missing", spoil(func(c *verify.Collateral) { c.TCBInfo = nil }), verify.StepTCBInfo, verify.ErrDocumentMissing},
		{"TCB info with a member twice", twice, verify.StepTCBInfo, strictjson.ErrDuplicate},
		{"signer revoked", func(s *scene) { s.terms.RevokedCAs = []*big.Int{s.fleet.TCBSigner.Cert.SerialNumber} }, verify.StepTCBInfo, verify.ErrTCBSignerRevoked},
		{"identity of SGX's quoting enclave", func(s *scene) { s.qe = func(q *issue.QEIdentity) { q.ID = "QE" } }, verify.StepQEIdentity, verify.ErrDocumentID},
		{"another quoting enclave", func(s *scene) { s.qe = func(q *issue.QEIdentity) { q.ISVProdID = 2 } }, verify.StepQEIdentity, verify.ErrQEProduct},
		{"quoting enclave revoked", func(s *scene) { s.terms.QEStatus = verify.Revoked }, verify.StepQEIdentity, verify.ErrQERevoked},
		{"documents exchanged", spoil(func(c *verify.Collateral) {
			c.TCBInfo, c.QEIdentity, c.TCBInfoSignature, c.QEIdentitySignature = c.QEIdentity, c.TCBInfo, c.QEIdentitySignature, c.TCBInfoSignature
		}), verify.StepTCBInfo, verify.ErrDocumentVersion},

		{"no tdxModule", without("tdxModule"), verify.StepTCBLevel, strictjson.ErrMissing},
		{"no module identities", without("tdxModuleIdentities"), verify.StepTCBLevel, strictjson.ErrMissing},
		{"no levels", func(s *scene) { s.levels = []any{} }, verify.StepTCBLevel, verify.ErrNoTCBLevel},
		{"level twice", func(s *scene) { s.levels = []any{s.level("UpToDate"), s.level("UpToDate")} }, verify.StepTCBLevel, verify.ErrLevels},
		{"unknown status", func(s *scene) { s.levels = []any{s.level("Fine")} }, verify.StepTCBLevel, verify.ErrUnknownStatus},
		{"level revoked", func(s *scene) { s.levels = []any{s.level("Revoked")} }, verify.StepTCBLevel, verify.ErrPlatformRevoked},
		{"level of 15 components", func(s *scene) {
			l := s.level("UpToDate")
			tcb := l["tcb"].(map[string]any)
			tcb["tdxtcbcomponents"] = tcb["tdxtcbcomponents"].([]any)[1:]
			s.levels = []any{l}
		}, verify.StepTCBLevel, verify.ErrComponents},
		{"machine below all levels", func(s *scene) {
			s.levels = []any{s.level("UpToDate")}
			s.terms.Platform.Components[0]++
			s.levels = []any{s.level("UpToDate")}
			s.terms.Platform.Components[0]--
		}, verify.StepTCBLevel, verify.ErrNoTCBLevel},
		{"TDX microcode below", func(s *scene) { s.levels = []any{s.level("UpToDate", 0, 0, 4)} }, verify.StepTCBLevel, verify.ErrNoTCBLevel},
		{"old module below", func(s *scene) {
			s.report.TEETCBSVN = [16]byte{5, 0, 3}
			s.levels = []any{s.level("UpToDate", 6, 0, 3)}
		}, verify.StepTCBLevel, verify.ErrNoTCBLevel},
		{"module of another signer", func(s *scene) { s.report.MRSignerSEAM[47] = 1 }, verify.StepTCBLevel, ErrModuleSigner},
		{"module in debug mode", func(s *scene) { s.report.SEAMAttributes[0] = 1 }, verify.StepTCBLevel, ErrModuleAttributes},
		{"module is unknown", func(s *scene) { s.report.TEETCBSVN[1] = 9 }, verify.StepTCBLevel, ErrModuleUnknown},
		{"module below its levels", func(s *scene) { s.report.TEETCBSVN[0] = 4 }, verify.StepTCBLevel, ErrModuleLevel},
		{"module revoked", member("tdxModuleIdentities", []any{module("TDX_01", 5, "Revoked")}), verify.StepTCBLevel, ErrModuleRevoked},
		{"module whose identity has another signer", member("tdxModuleIdentities", []any{of(module("TDX_01", 5, "UpToDate"), "mrsigner", strings.Repeat("01", 48))}), verify.StepTCBLevel, ErrModuleSigner},
		{"module whose identity has other attributes", member("tdxModuleIdentities", []any{of(module("TDX_01", 5, "UpToDate"), "attributes", "0100000000000000")}), verify.StepTCBLevel, ErrModuleAttributes},
		{"old module of another signer", func(s *scene) {
			s.report.TEETCBSVN = [16]byte{9, 0, 3}
			member("tdxModule", of(signer(), "mrsigner", strings.Repeat("01", 48)))(s)
		}, verify.StepTCBLevel, ErrModuleSigner},
		{"PCE below all levels", func(s *scene) {
			s.terms.Platform.PCESVN++
			s.levels = []any{s.level("UpToDate")}
			s.terms.Platform.PCESVN--
		}, verify.StepTCBLevel, verify.ErrNoTCBLevel},
		{"module's status is unknown", member("tdxModuleIdentities", []any{module("TDX_01", 5, "Fine")}), verify.StepTCBLevel, verify.ErrUnknownStatus},

		{"names that the second verifier does not know", func(s *scene) {
			template := issue.SignerTemplate(sceneNow)
			template.Subject.CommonName, template.KeyUsage = "SGX PCK Platform CA", x509.KeyUsageCertSign|x509.KeyUsageCRLSign
			template.IsCA, template.Subject.Organization = true, []string{"Intel Corporation"}
			renew(s, template)
		}, verify.StepQuoteSignature, ErrSecondVerifier},
	} {
		s := newScene(t)
		row.change(s)
		r, err := s.verify()
		if r != nil {
			t.Errorf("%s: accepted", row.name)
		}
		refusal(t, row.name, err, row.step, row.want)
		if err != nil && strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

// renew gives the machine a PCK CA by the template.
func renew(s *scene, ca *x509.Certificate) {
	var err error
	s.fleet.PCKCA, err = s.fleet.Root.Issue(ca)
	check(s.t, err)
	leaf, err := issue.PCKTemplate(s.terms.Platform, sceneNow)
	check(s.t, err)
	leaf.SubjectKeyId = []byte{1}
	pck, err := s.fleet.PCKCA.Issue(named(leaf, "Intel SGX PCK Certificate"))
	check(s.t, err)
	s.machine, err = issue.NewMachine(pck, quote.EncodeChain(pck.Cert.Raw, s.fleet.PCKCA.Cert.Raw, s.fleet.Root.Cert.Raw))
	check(s.t, err)
}

func simulated(s *scene) {
	var err error
	s.fleet, err = issue.NewFleet(sceneNow)
	check(s.t, err)
	s.machine, err = s.fleet.NewMachine(s.terms.Platform, sceneNow)
	check(s.t, err)
	s.options.Roots, s.options.AllowSim = []*x509.Certificate{s.fleet.Root.Cert}, true
}

// otherKey has the quote signed by a key that the quoting enclave does not vouch
// for.
func otherKey(s *scene) {
	other := newScene(s.t)
	s.machine.QE.Key = other.machine.QE.Key
}

// twice signs TCB info that says its id twice.
func twice(s *scene) {
	s.spoil = func(c *verify.Collateral) {
		c.TCBInfo = []byte(`{"id":"TDX",` + string(c.TCBInfo[1:]))
		var err error
		c.TCBInfoSignature, err = issue.SignRaw(s.fleet.TCBSigner.Key, c.TCBInfo)
		check(s.t, err)
	}
}

// TestFlips changes each byte of a published quote, and some of its collateral.
func TestFlips(t *testing.T) {
	raw, now := read(t, quotes, "phala/tdx_quote"), at(t, "2025-06-21T00:00:00Z")
	c := collateral(t, "tdx_quote_collateral.json")
	stride := 1
	if raceEnabled {
		stride = 41
	}
	for i := 0; i < len(raw); i += stride {
		raw[i] ^= 1 << (i % 8)
		if _, err := Verify(raw, c, options(now)); err == nil {
			t.Errorf("quote with byte %d changed is genuine", i)
		}
		raw[i] ^= 1 << (i % 8)
	}
	for name, part := range map[string][]byte{
		"root CRL": c.RootCRL, "PCK CRL": c.PCKCRL, "TCB info": c.TCBInfo, "QE identity": c.QEIdentity,
		"signature of TCB info": c.TCBInfoSignature[:], "signature of QE identity": c.QEIdentitySignature[:],
	} {
		for i := 0; i < len(part); i += 7 * stride {
			part[i] ^= 1 << (i % 8)
			if _, err := Verify(raw, c, options(now)); err == nil {
				t.Errorf("%s with byte %d changed is accepted", name, i)
			}
			part[i] ^= 1 << (i % 8)
		}
	}
	if _, err := Verify(raw, c, options(now)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Every prefix of a quote is refused.
func TestPrefixes(t *testing.T) {
	raw := read(t, quotes, "phala/tdx_quote_outdated")
	for n := range raw {
		if _, err := Parse(raw[:n]); err == nil {
			t.Errorf("%d of %d bytes are a quote", n, len(raw))
		}
	}
	if !errors.Is(func() error { _, err := Parse(nil); return err }(), ErrTruncated) {
		t.Error("nothing is a quote")
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"phala/tdx_quote", "automata/quotev5.dat"} {
		f.Add(read(f, quotes, name))
	}
	f.Add([]byte{4, 0, 2, 0, 0x81})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := Parse(b)
		if err != nil {
			return
		}
		if len(q.unpadded) > len(b) || string(q.unpadded) != string(b[:len(q.unpadded)]) || strings.Trim(string(b[len(q.unpadded):]), "\x00") != "" {
			t.Error("the quote is not the bytes that it came from")
		}
		// go-tdx-guest reads without bounds; Parse must keep from it what it
		// cannot take.
		_ = secondOpinion(q, options(sceneNow))
	})
}
