//go:build tsm

package channel_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/admission"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/guesttest"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
	"github.com/ehsm-kms/ehsm/internal/attest/tdx"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// guestMachines are one of each kind, made once; nobody changes them.
var guestMachines = sync.OnceValues(func() (m struct {
	tdx *guesttest.TDX
	snp *guesttest.SNP
}, err error) {
	w, err := theWorld()
	if err != nil {
		return m, err
	}
	if m.tdx, err = guesttest.NewTDX(w.now); err != nil {
		return m, err
	}
	m.snp, err = guesttest.NewSNP(w.now)
	return m, err
})

// guestPolicy accepts guests beside what policy does.
type guestPolicy struct {
	*policy
	guests map[channel.Role]*admission.Guests
	since  time.Time
}

func (p *guestPolicy) Guests(r channel.Role) *admission.Guests { return p.guests[r] }
func (p *guestPolicy) ListedSince(verify.Platform) time.Time   { return p.since }

// prover is an attester by a function.
type prover func([64]byte) (attest.Evidence, error)

func (f prover) Evidence(_ context.Context, d [64]byte) (attest.Evidence, error) { return f(d) }

// A guestScene is a dkeycache in a guest that calls a dkeyserver in an enclave.
type guestScene struct {
	cache, server *channel.Config
	judge         *guestPolicy // of the server
	tdx           guesttest.TDX
	snp           guesttest.SNP
	isSNP         bool
	body          func(*tdx.Report)      // changes it before it is signed
	report        func([]byte)           // likewise
	evidence      func(*attest.Evidence) // changes it afterwards
	collateral    func([]byte) []byte    // likewise
}

func newGuestScene(t testing.TB, isSNP bool) *guestScene {
	t.Helper()
	w := newWorld(t)
	m, err := guestMachines()
	if err != nil {
		t.Fatal(err)
	}
	s := &guestScene{tdx: *m.tdx, snp: *m.snp, isSNP: isSNP}
	var p, own *policy
	s.cache, own = config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
	s.cache.Policy = own
	s.server, p = config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
	p.roots = append(p.roots, m.tdx.Root, m.snp.Root)
	accepted := p.accepts[channel.DKeyCache]
	accepted.Platforms = append(accepted.Platforms, validate.Platform{Name: "tdx", PPID: m.tdx.Terms.Platform.PPID})
	r := guesttest.Guest([64]byte{})
	measurement, hostData := guesttest.Measured()
	s.judge = &guestPolicy{policy: p, guests: map[channel.Role]*admission.Guests{channel.DKeyCache: {
		TDX:    []manifest.TDXGuest{{MRTD: r.MRTD, RTMR0: r.RTMR[0], RTMR1: r.RTMR[1], RTMR2: r.RTMR[2], RTMR3: r.RTMR[3], MRConfigID: r.MRConfigID}},
		SNP:    []manifest.SNPGuest{{Measurement: measurement, HostData: hostData}},
		Chips:  []manifest.Platform{{Name: "chip", Chip: m.snp.ID}},
		MinTCB: manifest.SNPTCB{Bootloader: 3, SNP: 8, Microcode: 115},
		AMD:    true,
	}}}
	s.server.Policy = s.judge
	return s
}

// prove makes the guest's evidence.
func (s *guestScene) prove(d [64]byte) (e attest.Evidence, err error) {
	if s.isSNP {
		e.Kind = attest.SNPReport
		e.Quote, err = s.snp.Report(d, s.report)
	} else {
		body := guesttest.Guest(d)
		if s.body != nil {
			s.body(&body)
		}
		e.Kind = attest.TDXQuote4
		if s.tdx.Version == 5 {
			e.Kind = attest.TDXQuote5
		}
		e.Quote, err = s.tdx.Quote(body)
	}
	if s.evidence != nil {
		s.evidence(&e)
	}
	return e, err
}

// endorse returns the guest's collateral.
func (s *guestScene) endorse(context.Context) (b []byte, err error) {
	if s.isSNP {
		c, err := s.snp.Collateral()
		if err != nil {
			return nil, err
		}
		b = c.Append(nil)
	} else {
		c, err := s.tdx.Collateral()
		if err != nil {
			return nil, err
		}
		b = c.Append(nil)
	}
	if s.collateral != nil {
		b = s.collateral(b)
	}
	return b, nil
}

func (s *guestScene) run(t testing.TB) (cache, server result) {
	s.cache.Attester, s.cache.Collateral = prover(s.prove), s.endorse
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return handshake(ctx, s.cache, s.server)
}

// TestGuests has a guest of each kind join an enclave, and prove itself again.
func TestGuests(t *testing.T) {
	r := guesttest.Guest([64]byte{})
	measurement, hostData := guesttest.Measured()
	for name, isSNP := range map[string]bool{"TDX": false, "TDX, version 5": false, "SEV-SNP": true} {
		s := newGuestScene(t, isSNP)
		if name == "TDX, version 5" {
			s.tdx.Version = 5
		}
		cache, server := s.run(t)
		if cache.err != nil || server.err != nil {
			t.Errorf("%s: guest %v, enclave %v", name, cache.err, server.err)
			continue
		}
		p := server.conn.Peer()
		want, machine, platform := attest.TDXMeasurement(r.MRTD, r.MRConfigID, r.RTMR), attest.Machine{PPID: s.tdx.Terms.Platform.PPID, Serial: p.Machine.Serial}, "tdx"
		if isSNP {
			want, machine, platform = attest.SNPMeasurement(measurement, hostData), attest.Machine{Chip: s.snp.ID}, "chip"
		}
		if p.Identity.Measurement != want || p.Identity.Product != channel.DKeyCache.Product() || p.Machine != machine || p.Decision.Platform != platform || p.Until.IsZero() {
			t.Errorf("%s: got %+v", name, p)
		}
		if err := server.conn.Reattest(t.Context()); err != nil {
			t.Errorf("%s: Reattest: %v", name, err)
		}
		go cache.conn.Close()
		server.conn.Close()
	}
}

// guestRefusals are what guests do wrong, and what the enclave finds.
var guestRefusals = []struct {
	name   string
	isSNP  bool
	change func(*guestScene)
	want   error
}{
	{"TDX: evidence for another purpose", false, func(s *guestScene) { s.body = func(r *tdx.Report) { r.ReportData[0] ^= 1 } }, validate.ErrReportData},
	{"TDX: debug", false, func(s *guestScene) { s.body = func(r *tdx.Report) { r.Attributes |= 1 } }, tdx.ErrDebug},
	{"TDX: may be migrated", false, func(s *guestScene) { s.body = func(r *tdx.Report) { r.Attributes |= 1 << 29 } }, tdx.ErrMigratable},
	{"TDX: other MRTD", false, func(s *guestScene) { s.body = func(r *tdx.Report) { r.MRTD[47] ^= 1 } }, tdx.ErrGuest},
	{"TDX: other RTMR0", false, func(s *guestScene) { s.body = func(r *tdx.Report) { r.RTMR[0][0] ^= 1 } }, tdx.ErrGuest},
	{"TDX: other RTMR3", false, func(s *guestScene) { s.body = func(r *tdx.Report) { r.RTMR[3] = [48]byte{} } }, tdx.ErrGuest},
	{"TDX: other MRCONFIGID", false, func(s *guestScene) { s.body = func(r *tdx.Report) { r.MRConfigID[0] ^= 1 } }, tdx.ErrGuest},
	{"TDX: a changed quote", false, func(s *guestScene) { s.evidence = func(e *attest.Evidence) { e.Quote[200] ^= 1 } }, verify.ErrQuoteSignature},
	{"TDX: named as version 5", false, func(s *guestScene) { s.evidence = func(e *attest.Evidence) { e.Kind = attest.TDXQuote5 } }, channel.ErrEvidence},
	{"TDX: named as SEV-SNP", false, func(s *guestScene) { s.evidence = func(e *attest.Evidence) { e.Kind = attest.SNPReport } }, snp.ErrCollateral},
	{"TDX: root that is not trusted", false, func(s *guestScene) { s.judge.roots = []*x509.Certificate{verify.IntelRoot()} }, verify.ErrUnknownRoot},
	{"TDX: machine not admitted", false, func(s *guestScene) { s.judge.accepts[channel.DKeyCache].Platforms[2].PPID[0] ^= 1 }, validate.ErrPlatform},
	{"TDX: out of date, never seen before", false, func(s *guestScene) {
		s.tdx.Terms.Status, s.tdx.Terms.NewerDate = verify.OutOfDate, s.judge.now.AddDate(0, 0, -10)
	}, validate.ErrStatus},
	{"TDX: collateral of another kind", false, func(s *guestScene) { s.collateral = func([]byte) []byte { return []byte("PEM") } }, channel.ErrEvidence},
	{"TDX: no collateral", false, func(s *guestScene) { s.collateral = func([]byte) []byte { return nil } }, channel.ErrEvidence},
	{"TDX: guest of no role", false, func(s *guestScene) { delete(s.judge.guests, channel.DKeyCache) }, validate.ErrEnclave},
	{"TDX: guest of another role", false, func(s *guestScene) {
		s.judge.guests = map[channel.Role]*admission.Guests{channel.Core: s.judge.guests[channel.DKeyCache]}
	}, validate.ErrEnclave},
	{"TDX: only SEV-SNP is accepted", false, func(s *guestScene) { s.judge.guests[channel.DKeyCache].TDX = nil }, tdx.ErrEmptyPolicy},
	{"TDX: a policy that knows no guests", false, func(s *guestScene) { s.server.Policy = s.judge.policy }, validate.ErrEnclave},

	{"SEV-SNP: evidence for another purpose", true, func(s *guestScene) { s.report = func(b []byte) { b[0x50] ^= 1 } }, snp.ErrReportData},
	{"SEV-SNP: debug", true, func(s *guestScene) { s.report = func(b []byte) { b[8+2] |= 1 << 3 } }, snp.ErrDebug},
	{"SEV-SNP: may be migrated", true, func(s *guestScene) { s.report = func(b []byte) { b[8+2] |= 1 << 2 } }, snp.ErrMigratable},
	{"SEV-SNP: VMPL 1", true, func(s *guestScene) { s.report = func(b []byte) { b[0x30] = 1 } }, snp.ErrVMPL},
	{"SEV-SNP: other measurement", true, func(s *guestScene) { s.report = func(b []byte) { b[0x90] ^= 1 } }, snp.ErrGuest},
	{"SEV-SNP: other host data", true, func(s *guestScene) { s.report = func(b []byte) { b[0xc0] ^= 1 } }, snp.ErrGuest},
	{"SEV-SNP: a changed report", true, func(s *guestScene) { s.evidence = func(e *attest.Evidence) { e.Quote[0x90] ^= 1 } }, snp.ErrSignature},
	{"SEV-SNP: named as TDX", true, func(s *guestScene) { s.evidence = func(e *attest.Evidence) { e.Kind = attest.TDXQuote4 } }, channel.ErrEvidence},
	{"SEV-SNP: named as SGX", true, func(s *guestScene) { s.evidence = func(e *attest.Evidence) { e.Kind = attest.SGXQuote3 } }, channel.ErrEvidence},
	{"SEV-SNP: AMD is not trusted", true, func(s *guestScene) { s.judge.guests[channel.DKeyCache].AMD = false }, snp.ErrNoRoot},
	{"SEV-SNP: another ARK", true, func(s *guestScene) { s.judge.roots = nil }, snp.ErrUnknownRoot},
	{"SEV-SNP: chip not admitted", true, func(s *guestScene) { s.judge.guests[channel.DKeyCache].Chips[0].Chip[0] ^= 1 }, snp.ErrChip},
	{"SEV-SNP: no chip at all", true, func(s *guestScene) { s.judge.guests[channel.DKeyCache].Chips = nil }, snp.ErrEmptyPolicy},
	{"SEV-SNP: firmware below the least", true, func(s *guestScene) { s.judge.guests[channel.DKeyCache].MinTCB.SNP = 9 }, snp.ErrTCBMinimum},
	{"SEV-SNP: no least firmware", true, func(s *guestScene) { s.judge.guests[channel.DKeyCache].MinTCB = manifest.SNPTCB{} }, snp.ErrEmptyPolicy},
	{"SEV-SNP: chip revoked", true, func(s *guestScene) { s.snp.Revoked = true }, snp.ErrRevoked},
	{"SEV-SNP: revocation not known", true, func(s *guestScene) { s.snp.NoCRL = true }, snp.ErrUnrevocable},
	{"SEV-SNP: CRL over", true, func(s *guestScene) { s.judge.now = s.judge.now.Add(2 * time.Hour) }, snp.ErrCRLDates},
	{"SEV-SNP: collateral in another encoding", true, func(s *guestScene) { s.collateral = func(b []byte) []byte { return append(b, '\n') } }, snp.ErrCollateral},
	{"SEV-SNP: only TDX is accepted", true, func(s *guestScene) { s.judge.guests[channel.DKeyCache].SNP = nil }, snp.ErrEmptyPolicy},
}

func TestGuestRefusals(t *testing.T) {
	for _, row := range guestRefusals {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newGuestScene(t, row.isSNP)
			row.change(s)
			cache, server := s.run(t)
			if cache.err == nil || server.conn != nil || !errors.Is(server.err, row.want) || !errors.Is(server.err, channel.ErrEvidence) {
				t.Errorf("got %v, guest %v, want %v", server.err, cache.err, row.want)
			}
		})
	}
}

// TestGuestGrace has a machine of TDX that fell behind after it was admitted.
func TestGuestGrace(t *testing.T) {
	s := newGuestScene(t, false)
	behind := s.judge.now.AddDate(0, 0, -10)
	s.tdx.Terms.Status, s.tdx.Terms.NewerDate = verify.OutOfDate, behind
	s.judge.since = behind.AddDate(0, 0, -1)
	s.judge.accepts[channel.DKeyCache].TCBGrace = 30 * 24 * time.Hour
	cache, server := s.run(t)
	if cache.err != nil || server.err != nil {
		t.Fatal(cache.err, server.err)
	}
	if d := server.conn.Peer().Decision; !d.TCBGraceUntil.Equal(behind.AddDate(0, 0, 30)) {
		t.Errorf("the grace ends %v", d.TCBGraceUntil)
	}
	go cache.conn.Close()
	server.conn.Close()
}

// TestGuestStrangers names the machine of who is not admitted.
func TestGuestStrangers(t *testing.T) {
	for name, isSNP := range map[string]bool{"TDX": false, "SEV-SNP": true} {
		s := newGuestScene(t, isSNP)
		want := attest.Machine{Chip: s.snp.ID}
		if isSNP {
			s.judge.guests[channel.DKeyCache].Chips[0].Chip = manifest.ChipID{9}
		} else {
			s.judge.accepts[channel.DKeyCache].Platforms[2].PPID = [16]byte{9}
			want = attest.Machine{PPID: s.tdx.Terms.Platform.PPID}
		}
		_, server := s.run(t)
		stranger, ok := errors.AsType[*channel.Stranger](server.err)
		if !ok || !stranger.Machine.Same(want) {
			t.Errorf("%s: got %v", name, server.err)
		}
	}
}

// TestGuestsBothEnds has two guests of one image, as a core and the dkeycache of its
// node are: one image in two roles.
func TestGuestsBothEnds(t *testing.T) {
	a, b := newGuestScene(t, false), newGuestScene(t, true)
	a.server.Attester, a.server.Collateral = prover(b.prove), b.endorse
	judge := *a.judge
	judge.guests = map[channel.Role]*admission.Guests{channel.DKeyServer: a.judge.guests[channel.DKeyCache]}
	a.cache.Policy = &judge
	cache, server := a.run(t)
	if cache.err != nil || server.err != nil {
		t.Fatal(cache.err, server.err)
	}
	if p := cache.conn.Peer(); p.Machine.Chip != b.snp.ID || p.Identity.Product != channel.DKeyServer.Product() {
		t.Errorf("got %+v", p)
	}
	go cache.conn.Close()
	server.conn.Close()
}

// TestPublishedEvidence has what real machines signed. It was made for others, so
// that everything holds but what it was made for.
func TestPublishedEvidence(t *testing.T) {
	read := func(path string) []byte {
		b, err := os.ReadFile(filepath.Join("../../attest", path))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	c, err := verify.DecodeCollateralJSON(read("tdx/testdata/tdx_quote_collateral.json"))
	if err != nil {
		t.Fatal(err)
	}
	raw := read("dcap/testdata/phala/tdx_quote")
	q, err := tdx.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	r := &q.Report
	s := newGuestScene(t, false)
	s.judge.now, s.judge.roots = time.Date(2025, 6, 21, 0, 0, 0, 0, time.UTC), []*x509.Certificate{verify.IntelRoot()}
	s.judge.guests[channel.DKeyCache].TDX = []manifest.TDXGuest{{MRTD: r.MRTD, RTMR0: r.RTMR[0], RTMR1: r.RTMR[1], RTMR2: r.RTMR[2], RTMR3: r.RTMR[3], MRConfigID: r.MRConfigID}}
	s.judge.accepts[channel.DKeyCache].Platforms, s.judge.accepts[channel.DKeyCache].AnyPlatform = nil, true
	s.evidence = func(e *attest.Evidence) { e.Quote = raw }
	s.collateral = func([]byte) []byte { return c.Append(nil) }
	if _, server := s.run(t); !errors.Is(server.err, validate.ErrReportData) {
		t.Errorf("a published quote: got %v, want ErrReportData", server.err)
	}

	ask := bytes.TrimSpace(read("snp/testdata/milan.testcer"))
	published, err := snp.DecodeCollateral(append(pemOf(read("snp/testdata/vcek.testcer")), ask...))
	if err != nil {
		t.Fatal(err)
	}
	raw = read("snp/testdata/attestation.bin")
	s = newGuestScene(t, true)
	s.judge.roots = nil // AMD's alone
	s.judge.now = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	s.evidence = func(e *attest.Evidence) { e.Quote = raw }
	s.collateral = func([]byte) []byte { return published.Append(nil) }
	if _, server := s.run(t); !errors.Is(server.err, snp.ErrReportData) {
		t.Errorf("a published report: got %v, want ErrReportData", server.err)
	}
}

func pemOf(der []byte) []byte {
	c := snp.Collateral{VCEK: der}
	b := c.Append(nil)
	return b[:bytes.Index(b, []byte("-----END CERTIFICATE-----\n"))+len("-----END CERTIFICATE-----\n")]
}

// TestGuestsCollateralOfOwn has a judge that would fetch collateral for SGX.
func TestGuestsCollateralOfOwn(t *testing.T) {
	s := newGuestScene(t, false)
	s.server.PeerCollateral = func(context.Context, verify.Query) (verify.Collateral, error) { return verify.Collateral{}, nil }
	if _, server := s.run(t); !errors.Is(server.err, channel.ErrConfig) {
		t.Errorf("got %v, want ErrConfig", server.err)
	}
}
