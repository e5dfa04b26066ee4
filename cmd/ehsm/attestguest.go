package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
	"github.com/ehsm-kms/ehsm/internal/attest/tdx"
)

// A guest is what evidence of a whole virtual machine is judged by. Collateral
// and options for TDX are those of SGX, in evidence itself.
type guest struct {
	tdxPolicy     *tdx.Policy
	snpPolicy     *snp.Policy
	snpCollateral *snp.Collateral
	snpRoots      []*x509.Certificate
}

// isGuest reports evidence of a virtual machine: TDX quotes and SEV-SNP reports.
func isGuest(raw []byte) bool {
	kind := attest.KindOf(raw)
	return kind != 0 && kind != attest.SGXQuote3
}

// readGuest reads the files that the flags name, for evidence of a guest.
func (a *app) readGuest(ctx context.Context, e *evidence, f evidenceFlags) (err error) {
	amd := attest.KindOf(e.raw) == attest.SNPReport
	if amd {
		e.guest.snpRoots, e.rootName = snp.Roots(), "AMD's root CAs"
	}
	if f.root != "" {
		e.rootName = f.root
		if e.options.Roots, err = a.readRoots(ctx, f.root); err != nil {
			return err
		}
		e.guest.snpRoots = e.options.Roots
	}
	switch {
	case f.collateral != "" && amd:
		e.guest.snpCollateral, err = a.readSNPCollateral(ctx, f.collateral)
	case f.collateral != "":
		e.collateral, err = a.readCollateral(ctx, f.collateral, e.raw)
	}
	if err != nil || f.policy == "" {
		return err
	}
	return a.readGuestPolicy(ctx, e, f.policy, amd)
}

func (a *app) readSNPCollateral(ctx context.Context, path string) (*snp.Collateral, error) {
	b, err := a.readLimited(ctx, path, snp.MaxCollateral)
	if err != nil {
		return nil, err
	}
	c, err := snp.DecodeCollateral(b)
	if err != nil {
		return nil, withHint(fmt.Errorf("read %s: %w", path, err),
			"collateral of a SEV-SNP report is PEM: the certificates VCEK, ASK and ARK, and the CRL of the ARK")
	}
	return &c, nil
}

func (a *app) readGuestPolicy(ctx context.Context, e *evidence, path string, amd bool) error {
	b, err := a.readLimited(ctx, path, maxPolicy)
	if err != nil {
		return err
	}
	var warnings []string
	if amd {
		if e.guest.snpPolicy, err = snp.ParsePolicy(b); err == nil {
			warnings = e.guest.snpPolicy.Warnings()
		}
	} else {
		if e.guest.tdxPolicy, err = tdx.ParsePolicy(b); err == nil {
			warnings = e.guest.tdxPolicy.Warnings()
		}
	}
	if err != nil {
		return withHint(fmt.Errorf("read %s: %w", path, err), "docs/formats.md#attestation-policy-v1 has an example for each kind of evidence")
	}
	for _, w := range warnings {
		a.warn("policy: %s", w)
	}
	return nil
}

// judgeGuest answers both questions about a TDX quote or a SEV-SNP report.
func judgeGuest(e *evidence) *verdict {
	v := &verdict{File: e.file, At: e.options.Now, Root: e.rootName, Wanted: &finding{Answer: answerUnknown, Reason: "not shown to be genuine"}}
	if e.guest.tdxPolicy == nil && e.guest.snpPolicy == nil {
		v.Wanted = &finding{Answer: answerUnasked, Reason: "no --policy"}
	}
	if attest.KindOf(e.raw) == attest.SNPReport {
		v.judgeSNP(e)
	} else {
		v.judgeTDX(e)
	}
	return v
}

// unverified is the answer about evidence without collateral.
func unverified() finding {
	return finding{Answer: answerUnasked, Reason: "no --collateral; the file says this of itself"}
}

func (v *verdict) judgeTDX(e *evidence) {
	q, err := tdx.Parse(e.raw)
	if err != nil {
		v.Genuine = refusal(answerNo, verify.StepParse.String(), err)
		return
	}
	v.Guest = tdxView(q, len(e.raw))
	if e.collateral == nil {
		v.Genuine = unverified()
		return
	}
	r, err := tdx.Verify(e.raw, *e.collateral, e.options)
	if err != nil {
		v.Genuine = notGenuine(err)
		return
	}
	v.Genuine, v.TCB = finding{Answer: answerYes}, tcbViewOf(&r.Result)
	v.Guest.Platform = hex.EncodeToString(r.Platform.PPID[:])
	if e.guest.tdxPolicy == nil {
		return
	}
	d, err := tdx.Check(e.guest.tdxPolicy, r, validate.Input{ReportData: v.expected(e, q.Report.ReportData), Now: e.options.Now})
	v.decide(d.Enclave, d.Platform, err)
}

func (v *verdict) judgeSNP(e *evidence) {
	r, err := snp.Parse(e.raw)
	if err != nil {
		v.Genuine = refusal(answerNo, snp.StepParse.String(), err)
		return
	}
	v.Guest = snpView(r)
	if e.guest.snpCollateral == nil {
		v.Genuine = unverified()
		return
	}
	result, err := snp.Verify(e.raw, *e.guest.snpCollateral, snp.Options{Roots: e.guest.snpRoots, Now: e.options.Now})
	if err != nil {
		v.Genuine = refusal(answerNo, "verify", err)
		var s *snp.Error
		if errors.As(err, &s) {
			v.Genuine = refusal(answerNo, s.Step.String(), s.Err)
		}
		return
	}
	v.Genuine = finding{Answer: answerYes}
	v.Guest.Product, v.Guest.CertsUntil, v.Guest.Revocation = result.Product, when(result.CertsExpire), &result.Revocation
	if e.guest.snpPolicy == nil {
		return
	}
	d, err := snp.Check(e.guest.snpPolicy, result, v.expected(e, r.ReportData), e.options.Now)
	v.decide(d.Guest, d.Chip, err)
}

// expected returns what the evidence must bind: what was asked for, or what it
// binds, which is no comparison.
func (v *verdict) expected(e *evidence, bound [64]byte) [64]byte {
	if v.Compared = e.reportData != nil; v.Compared {
		return *e.reportData
	}
	return bound
}

// decide notes the answer of a policy.
func (v *verdict) decide(program, machine string, err error) {
	if err != nil {
		f := refusal(answerNo, policyStep(err), err)
		v.Wanted = &f
		return
	}
	v.Wanted, v.Enclave, v.Platform = &finding{Answer: answerYes}, program, machine
}

// A guestView is what a TDX quote or a SEV-SNP report says. Byte strings are in
// lower-case hex.
type guestView struct {
	Kind        string     `json:"kind"`
	Size        int        `json:"size"`
	Measurement string     `json:"measurement"` // MRTD, or SEV-SNP's launch measurement
	RTMR        []string   `json:"rtmr,omitempty"`
	ConfigID    string     `json:"mrconfigid,omitempty"`
	Module      string     `json:"mrseam,omitempty"`
	HostData    string     `json:"hostData,omitempty"`
	Debug       bool       `json:"debug"`
	Migratable  bool       `json:"migratable"`
	Attributes  string     `json:"attributes"` // of TDX, or SEV-SNP's guest policy
	VMPL        *uint32    `json:"vmpl,omitempty"`
	TCB         string     `json:"tcb"`
	ReportData  string     `json:"reportData"`
	Platform    string     `json:"platform,omitempty"` // PPID once it is genuine, or chip id
	Product     string     `json:"product,omitempty"`
	CertsUntil  *time.Time `json:"certificatesUntil,omitempty"` // of SEV-SNP
	Revocation  *bool      `json:"revocationChecked,omitempty"` // of SEV-SNP
}

func tdxView(q *tdx.Quote, size int) *guestView {
	r := &q.Report
	v := &guestView{
		Kind: fmt.Sprintf("TDX quote of version %d", q.Version), Size: size,
		Measurement: hex.EncodeToString(r.MRTD[:]), ConfigID: hex.EncodeToString(r.MRConfigID[:]), Module: hex.EncodeToString(r.MRSEAM[:]),
		Debug: r.Debug(), Migratable: r.Migratable(), Attributes: fmt.Sprintf("%016x, XFAM %016x", r.Attributes, r.XFAM),
		TCB: "TEE_TCB_SVN " + hex.EncodeToString(r.TEETCBSVN[:]), ReportData: hex.EncodeToString(r.ReportData[:]),
	}
	for _, m := range r.RTMR {
		v.RTMR = append(v.RTMR, hex.EncodeToString(m[:]))
	}
	return v
}

func snpView(r *snp.Report) *guestView {
	return &guestView{
		Kind: fmt.Sprintf("SEV-SNP report of version %d", r.Version), Size: snp.ReportSize,
		Measurement: hex.EncodeToString(r.Measurement[:]), HostData: hex.EncodeToString(r.HostData[:]),
		Debug: r.Debug(), Migratable: r.Migratable(), Attributes: fmt.Sprintf("%016x", r.Policy), VMPL: &r.VMPL,
		TCB: r.ReportedTCB.String(), ReportData: hex.EncodeToString(r.ReportData[:]), Platform: hex.EncodeToString(r.ChipID[:]),
	}
}

// write renders the view for people.
func (g *guestView) write(b *strings.Builder) {
	if g.Revocation != nil {
		checked := "checked"
		if !*g.Revocation {
			checked = "NOT checked: the collateral has no CRL"
		}
		row(b, "revocation:", "%s", checked)
	}
	if g.CertsUntil != nil {
		row(b, "certificates:", "to %s", instant(*g.CertsUntil))
	}
	fmt.Fprintf(b, "\nguest (%s, %d bytes)\n", g.Kind, g.Size)
	row(b, "  measurement:", "%s", g.Measurement)
	for i, m := range g.RTMR {
		row(b, fmt.Sprintf("  RTMR%d:", i), "%s", m)
	}
	for _, line := range [][2]string{{"MRCONFIGID", g.ConfigID}, {"TDX module", g.Module}, {"host data", g.HostData}} {
		if line[1] != "" {
			row(b, "  "+line[0]+":", "%s", line[1])
		}
	}
	row(b, "  debug:", "%s", yesNo(g.Debug, "YES: the host can read the guest's memory"))
	row(b, "  migratable:", "%s", yesNo(g.Migratable, "YES: the guest can be moved to another machine"))
	row(b, "  attributes:", "%s", g.Attributes)
	if g.VMPL != nil {
		row(b, "  VMPL:", "%d", *g.VMPL)
	}
	row(b, "  TCB:", "%s", g.TCB)
	row(b, "  REPORTDATA:", "%s", g.ReportData)
	if g.Product != "" {
		row(b, "  product:", "%s", printable(g.Product))
	}
	if g.Platform != "" {
		row(b, "  machine:", "%s", g.Platform)
	}
}

func yesNo(is bool, yes string) string {
	if is {
		return yes
	}
	return "no"
}
