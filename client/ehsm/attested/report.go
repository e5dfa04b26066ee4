package attested

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
	"github.com/ehsm-kms/ehsm/internal/attest/tdx"
)

// A Report says what was verified. Byte strings are in lower-case hex. Times that
// the kind of evidence does not have are zero.
type Report struct {
	Kind      string    // such as "SGX quote v3"
	At        time.Time // for which everything was verified
	Simulated bool      // no hardware protects the keys
	Debug     bool      // the host reads the memory of the program
	Wanted    bool      // a policy was asked and accepts it
	Program   string    // entry of the policy that accepts the program
	Machine   string    // entry of the policy that admits the machine; empty if any is admitted

	Measurement string    // MRENCLAVE, MRTD, or SEV-SNP's launch measurement
	RTMR        [4]string // of TDX
	ConfigID    string    // MRCONFIGID of TDX
	Signer      string    // MRSIGNER of SGX; who signed the program
	Product     uint16    // ISVPRODID of SGX
	SVN         uint16    // ISVSVN of SGX
	PlatformID  string    // PPID of the machine, or SEV-SNP's chip id

	TCBStatus   string   // Intel's word, or SEV-SNP's levels
	Advisories  []string // of Intel, such as INTEL-SA-00615
	TCBDate     time.Time
	Evaluation  uint32    // tcbEvaluationDataNumber
	Issued      time.Time // of the latest part of collateral
	Expires     time.Time // of the first part of collateral
	CertsExpire time.Time // of the first certificate
	Revocation  bool      // revocation of certificates was checked

	DomainID      [32]byte
	DomainPinned  bool   // it is the one that was expected
	Instance      string // UUID of this start of the core; empty for a native quote
	HPKEPublicKey []byte // MLKEM768-X25519, of this start of the core
	ReplyKey      []byte // Ed25519, signs its replies to key pairs; empty for a native quote, and where there is none
}

// dcapReport fills what SGX and TDX have in common.
func dcapReport(r *verify.Result) Report {
	return Report{
		Simulated: r.Simulated, PlatformID: hex.EncodeToString(r.Platform.PPID[:]),
		TCBStatus: r.Status.String(), Advisories: r.Advisories, TCBDate: r.TCBDate, Evaluation: r.TCBEvaluation,
		Issued: r.LatestIssue, Expires: r.Expires, CertsExpire: r.CertsExpire, Revocation: true,
	}
}

func (r *Report) describeEnclave(e *quote.Report) {
	r.Measurement, r.Signer = hex.EncodeToString(e.MREnclave[:]), hex.EncodeToString(e.MRSigner[:])
	r.Product, r.SVN, r.Debug = e.ISVProdID, e.ISVSVN, e.Attributes.Debug()
}

func (r *Report) describeDomain(d *tdx.Report) {
	r.Measurement, r.ConfigID = hex.EncodeToString(d.MRTD[:]), hex.EncodeToString(d.MRConfigID[:])
	for i, m := range d.RTMR {
		r.RTMR[i] = hex.EncodeToString(m[:])
	}
	r.Debug = d.Debug()
}

func (r *Report) describeGuest(v *snp.Result) {
	g := v.Report
	r.Measurement, r.PlatformID = hex.EncodeToString(g.Measurement[:]), hex.EncodeToString(g.ChipID[:])
	r.Debug, r.TCBStatus = g.Debug(), g.ReportedTCB.String()
	r.CertsExpire, r.Expires, r.Issued, r.Revocation = v.CertsExpire, v.CRLExpires, v.LatestIssue, v.Revocation
}

// String says in words what was verified, in several lines.
func (r *Report) String() string {
	var b strings.Builder
	line := func(format string, v ...any) { fmt.Fprintf(&b, format+"\n", v...) }
	line("genuine: %s, verified for %s", r.genuineWords(), r.At.UTC().Format(time.RFC3339))
	line("wanted: %s", r.wantedWords())
	line("program: measurement %s", r.Measurement)
	if r.Signer != "" {
		line("signer: %s, product %d, version %d", r.Signer, r.Product, r.SVN)
	}
	if r.Debug {
		line("DEBUG: the host can read the program's memory")
	}
	line("TCB: %s%s", r.TCBStatus, advisoryWords(r.Advisories))
	line("in force: %s", r.dateWords())
	pinned := "as expected"
	if !r.DomainPinned {
		pinned = "which nobody asked for"
	}
	line("domain: %x, %s", r.DomainID, pinned)
	if r.Instance != "" {
		line("instance: %s", r.Instance)
	}
	return b.String()
}

func (r *Report) genuineWords() string {
	if r.Simulated {
		return r.Kind + " of a SIMULATED platform: no hardware protects its keys"
	}
	return r.Kind
}

func (r *Report) wantedWords() string {
	switch {
	case !r.Wanted:
		return "not asked, as there is no policy"
	case r.Machine == "":
		return fmt.Sprintf("as %q on any machine", r.Program)
	}
	return fmt.Sprintf("as %q on %q", r.Program, r.Machine)
}

func (r *Report) dateWords() string {
	date := func(t time.Time) string { return t.UTC().Format(time.DateOnly) }
	if !r.Revocation {
		return "certificates until " + date(r.CertsExpire) + "; revocation was NOT checked"
	}
	return fmt.Sprintf("collateral from %s until %s, certificates until %s", date(r.Issued), date(r.Expires), date(r.CertsExpire))
}

func advisoryWords(advisories []string) string {
	if len(advisories) == 0 {
		return ""
	}
	return ", advisories " + strings.Join(advisories, " ")
}
