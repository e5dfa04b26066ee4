package verify

import (
	"encoding/hex"
	"fmt"
	"math"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
)

// An Envelope is what every quote of DCAP has around its body, whichever kind of
// TEE asked for it. Sizes are those of package quote.
type Envelope struct {
	Signed         []byte       // header and body as they stand in the quote
	Signature      [64]byte     // r || s over Signed, by AttestationKey
	AttestationKey [64]byte     // P-256 point, X || Y
	QEReport       quote.Report // of the quoting enclave
	QESignature    [64]byte     // r || s over QEReport, by the PCK
	AuthData       []byte       // hashed into QEReport.ReportData
	CertData       []byte       // PCK chain in PEM, leaf first

	TCBInfoID  string // the id that the TCB info must have, such as "TDX"
	IdentityID string // the id that the QE identity must have, such as "TD_QE"
}

// Endorsed is what holds for an envelope. Its Result lacks what only the reader
// of the body knows: Header, Report, Status, PlatformStatus, PlatformAdvisories
// and TCBDate are zero, Advisories and OutOfDateSince are those of the quoting
// enclave alone.
type Endorsed struct {
	Result
	// TCBInfo is the signed document. It is of the right signer, id, version,
	// FMSPC and PCEID, has no member twice, and is in force; its levels have not
	// been read.
	TCBInfo *strictjson.Node
}

// VerifyEnvelope makes the checks of Verify that do not depend on the body of
// the quote: all of them but the parsing of the quote and the platform's level.
// Every error is an *Error with the step that failed.
func VerifyEnvelope(e Envelope, c Collateral, o Options) (*Endorsed, error) {
	v := &verification{signed: e.Signed, c: &c, o: &o, quote: &quote.Quote{
		Signature: e.Signature, AttestationKey: e.AttestationKey, QEReport: e.QEReport, QESignature: e.QESignature,
		AuthData: e.AuthData, CertData: e.CertData,
	}}
	out := new(Endorsed)
	err := run([]check{
		{StepPCKChain, v.pckChain},
		{StepCRL, v.crls},
		{StepSGXExtension, v.extension},
		{StepQEReport, v.qeReport},
		{StepQuoteSignature, v.quoteSignature},
		{StepTCBInfo, func() (err error) { out.TCBInfo, err = v.foreignTCBInfo(e.TCBInfoID); return err }},
		{StepQEIdentity, func() error { return v.qeIdentity(e.IdentityID) }},
	})
	if err != nil {
		return nil, err
	}
	r := &v.result
	r.QEReport = e.QEReport
	r.TCBEvaluation = min(r.TCBEvaluation, v.qe.evaluation)
	r.Advisories = mergeAdvisories(v.qeLevel.advisories, nil)
	r.OutOfDateSince = v.qeOutOfDateSince()
	out.Result = *r
	return out, nil
}

// foreignTCBInfo checks TCB info of another TEE than SGX, up to its levels.
func (v *verification) foreignTCBInfo(id string) (*strictjson.Node, error) {
	if err := v.authentic(v.c.TCBInfo, &v.c.TCBInfoSignature, v.c.TCBInfoIssuerChain); err != nil {
		return nil, err
	}
	_, n, err := strictjson.Parse(v.c.TCBInfo, MaxDocument)
	if err != nil {
		return nil, err
	}
	h, err := readHeader(n, id, 3)
	if err != nil {
		return nil, err
	}
	var fmspc [6]byte
	var pceID [2]byte
	n.Member("fmspc").Hex(fmspc[:])
	n.Member("pceId").Hex(pceID[:])
	kind, p := n.Member("tcbType").Uint(math.MaxUint32), &v.result.Platform
	switch {
	case n.Err() != nil:
		return nil, n.Err()
	case kind != 0:
		return nil, fmt.Errorf("%w: %d", ErrTCBType, kind)
	case fmspc != p.FMSPC:
		return nil, fmt.Errorf("%w: %s, want %s", ErrFMSPC, hex.EncodeToString(fmspc[:]), hex.EncodeToString(p.FMSPC[:]))
	case pceID != p.PCEID:
		return nil, fmt.Errorf("%w: %s, want %s", ErrPCEID, hex.EncodeToString(pceID[:]), hex.EncodeToString(p.PCEID[:]))
	}
	v.result.TCBEvaluation = h.evaluation
	return n, v.current(h)
}

// qeOutOfDateSince returns the date of the earliest level of the quoting enclave
// above its own, if it is out of date.
func (v *verification) qeOutOfDateSince() (since time.Time) {
	if v.qeLevel.status == UpToDate {
		return since
	}
	for _, l := range v.qe.levels {
		if l.date.After(v.qeLevel.date) {
			earliest(&since, l.date)
		}
	}
	return since
}

// A Level is what a document says of a TCB level.
type Level struct {
	Date       time.Time // all advisories published until then are dealt with or listed
	Status     Status
	Advisories []string // in the order of the document
}

// ReadLevel reads the members tcbDate, tcbStatus and advisoryIDs of a level.
// Errors: those of strictjson, and ErrUnknownStatus.
func ReadLevel(n *strictjson.Node) (Level, error) {
	l, err := readLevelStatus(n)
	return Level{Date: l.date, Status: l.status, Advisories: l.advisories}, err
}
