package main

import (
	"cmp"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	sgx "github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// A quoteView is what a quote says. Byte strings are in lower-case hex.
type quoteView struct {
	Size     int         `json:"size"`
	Enclave  reportView  `json:"enclave"`
	Quoting  reportView  `json:"quotingEnclave"`
	Platform *platformOf `json:"platform,omitempty"`
	Problem  string      `json:"platformProblem,omitempty"` // why Platform is not known
}

// A reportView is a report of an enclave.
type reportView struct {
	MREnclave  string `json:"mrenclave"`
	MRSigner   string `json:"mrsigner"`
	Product    uint16 `json:"isvprodid"`
	SVN        uint16 `json:"isvsvn"`
	Debug      bool   `json:"debug"`
	Flags      string `json:"flags"`
	XFRM       string `json:"xfrm"`
	MiscSelect string `json:"miscselect"`
	CPUSVN     string `json:"cpusvn"`
	ReportData string `json:"reportData"`
}

// A platformOf is what the PCK certificate in a quote says.
type platformOf struct {
	FMSPC      string    `json:"fmspc"`
	PCEID      string    `json:"pceid"`
	PPID       string    `json:"ppid"`
	Serial     string    `json:"pckSerial"`
	CA         string    `json:"pckCA"`
	NotBefore  time.Time `json:"notBefore"`
	NotAfter   time.Time `json:"notAfter"`
	Components string    `json:"tcbComponents"`
	PCESVN     uint16    `json:"pcesvn"`
	SMT        *bool     `json:"hyperThreading,omitempty"` // if it says
}

// A tcbView is what Intel says of a genuine quote.
type tcbView struct {
	Status         string     `json:"status"`
	PlatformStatus string     `json:"platformStatus"`
	QEStatus       string     `json:"qeStatus"`
	Advisories     []string   `json:"advisories"`
	Date           time.Time  `json:"tcbDate"`
	QEDate         time.Time  `json:"qeTcbDate"`
	OutOfDateSince *time.Time `json:"outOfDateSince,omitempty"`
	Evaluation     uint32     `json:"tcbEvaluationDataNumber"`
	From           time.Time  `json:"collateralFrom"`
	Until          time.Time  `json:"collateralUntil"`
	CertsUntil     time.Time  `json:"certificatesUntil"`
	Simulated      bool       `json:"simulated"`
}

// quoteViewOf reads a quote. A platform that cannot be read is a problem in the
// view, no error.
func quoteViewOf(raw []byte) (*quoteView, error) {
	q, err := sgx.Parse(raw)
	if err != nil {
		return nil, err
	}
	v := &quoteView{Size: len(raw), Enclave: reportViewOf(&q.Report), Quoting: reportViewOf(&q.QEReport)}
	if v.Platform, err = platformViewOf(q); err != nil {
		v.Problem = printable(err.Error())
	}
	return v, nil
}

func reportViewOf(r *sgx.Report) reportView {
	return reportView{
		MREnclave: hex.EncodeToString(r.MREnclave[:]), MRSigner: hex.EncodeToString(r.MRSigner[:]),
		Product: r.ISVProdID, SVN: r.ISVSVN, Debug: r.Attributes.Debug(),
		Flags: fmt.Sprintf("%016x", r.Attributes.Flags), XFRM: fmt.Sprintf("%016x", r.Attributes.XFRM),
		MiscSelect: fmt.Sprintf("%08x", r.MiscSelect), CPUSVN: hex.EncodeToString(r.CPUSVN[:]),
		ReportData: hex.EncodeToString(r.ReportData[:]),
	}
}

func platformViewOf(q *sgx.Quote) (*platformOf, error) {
	chain, err := q.Certificates()
	if err != nil {
		return nil, err
	}
	pck, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("PCK certificate: %w", err)
	}
	p, err := verify.PlatformOf(pck)
	if err != nil {
		return nil, err
	}
	v := &platformOf{
		FMSPC: hex.EncodeToString(p.FMSPC[:]), PCEID: hex.EncodeToString(p.PCEID[:]), PPID: hex.EncodeToString(p.PPID[:]),
		Serial: p.Serial, CA: pck.Issuer.CommonName, NotBefore: pck.NotBefore.UTC(), NotAfter: pck.NotAfter.UTC(),
		Components: hex.EncodeToString(p.Components[:]), PCESVN: p.PCESVN,
	}
	if p.HasInstance {
		v.SMT = &p.SMT
	}
	return v, nil
}

func tcbViewOf(r *verify.Result) *tcbView {
	v := &tcbView{
		Status: r.Status.String(), PlatformStatus: r.PlatformStatus.String(), QEStatus: r.QEStatus.String(),
		Advisories: append([]string{}, r.Advisories...), // a list in JSON even if it is empty
		Date:       r.TCBDate, QEDate: r.QETCBDate, Evaluation: r.TCBEvaluation,
		From: r.LatestIssue, Until: r.Expires, CertsUntil: r.CertsExpire, Simulated: r.Simulated,
	}
	if !r.OutOfDateSince.IsZero() {
		v.OutOfDateSince = &r.OutOfDateSince
	}
	return v
}

// text renders a verdict for people.
func (v *verdict) text() string {
	var b strings.Builder
	genuine := v.Genuine.text()
	if v.Genuine.Answer == answerYes {
		genuine = fmt.Sprintf("yes, vouched for by %s at %s", v.Root, instant(v.At))
	}
	row(&b, "genuine:", "%s", genuine)
	if v.Wanted != nil {
		row(&b, "wanted:", "%s", v.wantedText())
	}
	if v.TCB != nil {
		v.TCB.write(&b)
	}
	if v.Quote != nil {
		v.Quote.write(&b)
	}
	if v.Guest != nil {
		v.Guest.write(&b)
	}
	return b.String()
}

func (f finding) text() string {
	if f.Step == "" {
		return f.Answer + ": " + f.Reason
	}
	return fmt.Sprintf("%s: %s: %s", f.Answer, f.Step, f.Reason)
}

func (v *verdict) wantedText() string {
	if v.Wanted.Answer != answerYes {
		return v.Wanted.text()
	}
	what := "enclave"
	if v.Guest != nil {
		what = "guest"
	}
	text := fmt.Sprintf("yes, as %s %q on ", what, v.Enclave)
	if v.Platform == "" {
		text += "any platform"
	} else {
		text += fmt.Sprintf("platform %q", v.Platform)
	}
	if !v.Compared {
		text += "; REPORTDATA was not compared (--report-data)"
	}
	return text
}

// row writes one line of a table.
func row(b *strings.Builder, name, format string, v ...any) {
	fmt.Fprintf(b, "%-18s "+format+"\n", append([]any{name}, v...)...)
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (t *tcbView) write(b *strings.Builder) {
	row(b, "TCB status:", "%s (platform %s, quoting enclave %s)", t.Status, t.PlatformStatus, t.QEStatus)
	row(b, "advisories:", "%s", printable(cmp.Or(strings.Join(t.Advisories, " "), "none")))
	row(b, "TCB date:", "%s, of the quoting enclave %s", t.Date.Format(time.DateOnly), t.QEDate.Format(time.DateOnly))
	if t.OutOfDateSince != nil {
		row(b, "out of date:", "since %s", t.OutOfDateSince.Format(time.DateOnly))
	}
	row(b, "collateral:", "evaluation %d, from %s to %s", t.Evaluation, instant(t.From), instant(t.Until))
	row(b, "certificates:", "to %s", instant(t.CertsUntil))
	if t.Simulated {
		row(b, "SIMULATED:", "no hardware protects this enclave")
	}
}

func (q *quoteView) write(b *strings.Builder) {
	fmt.Fprintf(b, "\nenclave (SGX quote of version 3, %d bytes)\n", q.Size)
	q.Enclave.write(b)
	row(b, "  REPORTDATA:", "%s", q.Enclave.ReportData)
	fmt.Fprintf(b, "\nplatform\n")
	if q.Platform == nil {
		row(b, "  unknown:", "%s", q.Problem)
	} else {
		q.Platform.write(b)
	}
	fmt.Fprintf(b, "\nquoting enclave\n")
	q.Quoting.write(b)
}

func (r *reportView) write(b *strings.Builder) {
	row(b, "  MRENCLAVE:", "%s", r.MREnclave)
	row(b, "  MRSIGNER:", "%s", r.MRSigner)
	row(b, "  product, SVN:", "%d, %d", r.Product, r.SVN)
	debug := "no"
	if r.Debug {
		debug = "YES: the host can read the enclave's memory"
	}
	row(b, "  debug:", "%s", debug)
	row(b, "  attributes:", "flags %s, XFRM %s, MISCSELECT %s", r.Flags, r.XFRM, r.MiscSelect)
	row(b, "  CPUSVN:", "%s", r.CPUSVN)
}

func (p *platformOf) write(b *strings.Builder) {
	row(b, "  FMSPC, PCEID:", "%s, %s", p.FMSPC, p.PCEID)
	row(b, "  PPID:", "%s", p.PPID)
	row(b, "  PCK serial:", "%s", p.Serial)
	row(b, "  PCK CA:", "%q", p.CA)
	row(b, "  PCK valid:", "%s to %s", instant(p.NotBefore), instant(p.NotAfter))
	row(b, "  TCB:", "components %s, PCESVN %d", p.Components, p.PCESVN)
	if p.SMT != nil {
		row(b, "  hyper-threading:", "%t", *p.SMT)
	}
}
