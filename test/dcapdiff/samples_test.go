//go:build dcapdiff

package dcapdiff

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

const (
	vectors   = "../../internal/attest/dcap/testdata/"
	mutations = 150 // of each genuine quote
	day       = 24 * time.Hour
)

func samples(t *testing.T) []sample {
	t.Helper()
	var all []sample
	random := rand.New(rand.NewPCG(1, 2)) // the same cases in every run
	for _, g := range genuine(t) {
		all = append(all, g)
		all = append(all, moments(g)...)
		for i := range mutations {
			all = append(all, mutate(g, i, random))
		}
	}
	return append(all, simulated(t)...)
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(vectors + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func genuine(t *testing.T) []sample {
	t.Helper()
	phala, err := verify.DecodeCollateralJSON(read(t, "phala/sgx_quote_collateral.json"))
	if err != nil {
		t.Fatal(err)
	}
	chain := quote.EncodeChain(read(t, "automata/signing.der"), read(t, "automata/root.der"))
	automata := verify.Collateral{
		RootCRL: read(t, "automata/intel_root_ca_crl.der"), PCKCRL: read(t, "automata/platform_crl.der"),
		TCBInfoIssuerChain: chain, QEIdentityIssuerChain: chain,
	}
	hexQuote, err := hex.DecodeString(strings.TrimSpace(string(read(t, "automata/quotev3.hex"))))
	if err := errors.Join(err,
		automata.SetTCBInfo(read(t, "automata/sgx_tcbinfov3_00606a000000.json")),
		automata.SetQEIdentity(read(t, "automata/sgx_qeidentity_v4.json")),
	); err != nil {
		t.Fatal(err)
	}
	june, august := time.Date(2025, 6, 25, 0, 0, 0, 0, time.UTC), time.Date(2025, 8, 20, 0, 0, 0, 0, time.UTC)
	root := verify.IntelRoot()
	return []sample{
		{"phala/sgx_quote", read(t, "phala/sgx_quote"), phala, root, june},
		{"automata/quotev3", hexQuote, automata, root, august},
		{"oasis/quote_v3", read(t, "oasis/quote_v3_ecdsa_p256_pck_chain.bin"), automata, root, august},
		{"automata/quote_sgx (debug)", read(t, "automata/quote_sgx.bin"), phala, root, june},
	}
}

// moments moves a sample to times around and far off its window.
func moments(s sample) (all []sample) {
	for _, days := range []int{-9000, -400, -31, -7, -1, 1, 7, 20, 31, 400, 9000} {
		m := s
		m.name, m.at = fmt.Sprintf("%s, %d days", s.name, days), s.at.Add(time.Duration(days)*day)
		all = append(all, m)
	}
	return all
}

// mutate changes one part of a sample at random.
func mutate(s sample, i int, random *rand.Rand) sample {
	c := &s.collateral
	parts := []*[]byte{&s.quote, &s.quote, &s.quote, &c.RootCRL, &c.PCKCRL, &c.TCBInfoIssuerChain, &c.TCBInfo, &c.QEIdentityIssuerChain, &c.QEIdentity}
	n := random.IntN(len(parts))
	part := parts[n]
	b := bytes.Clone(*part)
	at := random.IntN(len(b))
	kind := i % 6
	switch kind {
	case 0, 1:
		b[at] ^= 1 << random.IntN(8)
	case 2:
		b = b[:at]
	case 3:
		b = append(b[:at:at], append([]byte{byte(random.Uint32())}, b[at:]...)...)
	case 4:
		b = append(b[:at:at], b[at+1:]...)
	case 5:
		b = append(b, []string{"\x00", "\n", " ", "x"}[random.IntN(4)]...)
	}
	*part = b
	s.name = fmt.Sprintf("%s, mutation %d of kind %d in part %d at %d", s.name, i, kind, n, at)
	return s
}

var statuses = []verify.Status{
	verify.UpToDate, verify.SWHardeningNeeded, verify.ConfigurationNeeded, verify.ConfigurationAndSWHardeningNeeded,
	verify.OutOfDate, verify.OutOfDateConfigurationNeeded, verify.Revoked,
}

// simulated makes quotes of a fleet with every pair of statuses, and with
// everything that may be wrong with machine or collateral.
func simulated(t *testing.T) (all []sample) {
	t.Helper()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	fleet, err := issue.NewFleet(now)
	if err != nil {
		t.Fatal(err)
	}
	platform := issue.NewPlatform()
	machine, err := fleet.NewMachine(platform, now)
	if err != nil {
		t.Fatal(err)
	}
	add := func(name string, terms issue.Terms, edit func(r *quote.Report, s *sample)) {
		t.Helper()
		terms.Platform = platform
		if terms.Issued.IsZero() {
			terms.Issued, terms.Next = now.Add(-day), now.Add(29*day)
		}
		s := sample{name: "simulated, " + name, root: fleet.Root.Cert, at: now}
		if s.collateral, err = fleet.Collateral(terms); err != nil {
			t.Fatal(err)
		}
		r := quote.Report{Attributes: quote.Attributes{Flags: quote.FlagInit | quote.FlagMode64, XFRM: 7}, MREnclave: [32]byte{1}}
		edit(&r, &s)
		if s.quote == nil {
			if s.quote, err = machine.Quote(r); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, s)
	}
	same := func(*quote.Report, *sample) {}
	for _, p := range statuses {
		for _, q := range []verify.Status{verify.UpToDate, verify.OutOfDate, verify.Revoked} {
			add(fmt.Sprintf("%v and %v", p, q), issue.Terms{Status: p, QEStatus: q, Advisories: []string{"A"}, QEAdvisories: []string{"A", "B"}}, same)
		}
	}
	add("PCK revoked", issue.Terms{RevokedPCKs: []*big.Int{machine.PCK.Cert.SerialNumber}}, same)
	add("CA revoked", issue.Terms{RevokedCAs: []*big.Int{fleet.PCKCA.Cert.SerialNumber}}, same)
	add("signer revoked", issue.Terms{RevokedCAs: []*big.Int{fleet.TCBSigner.Cert.SerialNumber}}, same)
	add("other revoked", issue.Terms{RevokedCAs: []*big.Int{big.NewInt(7)}, RevokedPCKs: []*big.Int{big.NewInt(8)}}, same)
	add("expired", issue.Terms{Issued: now.Add(-30 * day), Next: now.Add(-time.Second)}, same)
	add("to come", issue.Terms{Issued: now.Add(time.Second), Next: now.Add(day)}, same)
	add("last second", issue.Terms{Issued: now.Add(-day), Next: now}, same)
	add("first second", issue.Terms{Issued: now, Next: now.Add(day)}, same)
	add("debug", issue.Terms{}, func(r *quote.Report, _ *sample) { r.Attributes.Flags |= quote.FlagDebug })
	add("Intel's root", issue.Terms{}, func(_ *quote.Report, s *sample) { s.root = verify.IntelRoot() })
	add("CRLs exchanged", issue.Terms{}, func(_ *quote.Report, s *sample) {
		s.collateral.RootCRL, s.collateral.PCKCRL = s.collateral.PCKCRL, s.collateral.RootCRL
	})
	add("no CRLs", issue.Terms{}, func(_ *quote.Report, s *sample) { s.collateral.RootCRL, s.collateral.PCKCRL = nil, nil })
	for i := range 16 {
		add(fmt.Sprintf("component %d below", i), issue.Terms{}, documents(t, fleet, platform, now, func(d *issue.TCBInfo, _ *issue.QEIdentity) { d.Levels[0].TCB.Components[i].SVN++ }))
	}
	for name, edit := range map[string]func(d *issue.TCBInfo, q *issue.QEIdentity){
		"PCESVN below":      func(d *issue.TCBInfo, _ *issue.QEIdentity) { d.Levels[0].TCB.PCESVN++ },
		"other FMSPC":       func(d *issue.TCBInfo, _ *issue.QEIdentity) { d.FMSPC = "000000000000" },
		"other PCEID":       func(d *issue.TCBInfo, _ *issue.QEIdentity) { d.PCEID = "0001" },
		"TCB info for TDX":  func(d *issue.TCBInfo, _ *issue.QEIdentity) { d.ID = "TDX" },
		"TCB info 2":        func(d *issue.TCBInfo, _ *issue.QEIdentity) { d.Version = 2 },
		"unknown status":    func(d *issue.TCBInfo, _ *issue.QEIdentity) { d.Levels[0].Status = "Fine" },
		"no levels":         func(d *issue.TCBInfo, _ *issue.QEIdentity) { d.Levels = []issue.TCBLevel{} },
		"identity for TDX":  func(_ *issue.TCBInfo, q *issue.QEIdentity) { q.ID = "TD_QE" },
		"identity 3":        func(_ *issue.TCBInfo, q *issue.QEIdentity) { q.Version = 3 },
		"other QE signer":   func(_ *issue.TCBInfo, q *issue.QEIdentity) { q.MRSigner = strings.Repeat("00", 32) },
		"other QE product":  func(_ *issue.TCBInfo, q *issue.QEIdentity) { q.ISVProdID = 2 },
		"QE below":          func(_ *issue.TCBInfo, q *issue.QEIdentity) { q.Levels[0].TCB.ISVSVN = 9 },
		"QE above":          func(_ *issue.TCBInfo, q *issue.QEIdentity) { q.Levels[0].TCB.ISVSVN = 7 },
		"QE miscselect":     func(_ *issue.TCBInfo, q *issue.QEIdentity) { q.MiscSelect = "00000001" },
		"QE attributes":     func(_ *issue.TCBInfo, q *issue.QEIdentity) { q.Attributes = "01" + q.Attributes[2:] },
		"bits beyond masks": func(_ *issue.TCBInfo, q *issue.QEIdentity) { q.Attributes = "15" + q.Attributes[2:] },
		"QE hardening":      func(_ *issue.TCBInfo, q *issue.QEIdentity) { q.Levels[0].Status = "SWHardeningNeeded" },
		"QE configuration":  func(_ *issue.TCBInfo, q *issue.QEIdentity) { q.Levels[0].Status = "ConfigurationNeeded" },
	} {
		add(name, issue.Terms{}, documents(t, fleet, platform, now, edit))
	}
	return all
}

// documents signs both documents after a change.
func documents(t *testing.T, fleet *issue.Fleet, p verify.Platform, now time.Time, edit func(*issue.TCBInfo, *issue.QEIdentity)) func(*quote.Report, *sample) {
	terms := issue.Terms{Platform: p, Issued: now.Add(-day), Next: now.Add(day)}
	info, identity := terms.TCBInfo(), terms.QEIdentity()
	edit(&info, &identity)
	return func(_ *quote.Report, s *sample) {
		var err, err2 error
		s.collateral.TCBInfo, s.collateral.TCBInfoSignature, err = fleet.TCBSigner.SignDocument(info)
		s.collateral.QEIdentity, s.collateral.QEIdentitySignature, err2 = fleet.TCBSigner.SignDocument(identity)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
	}
}
