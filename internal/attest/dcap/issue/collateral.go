package issue

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// Terms say what a fleet states about a platform. The zero values of the
// statuses mean UpToDate.
type Terms struct {
	Platform     verify.Platform
	Issued, Next time.Time // of CRLs and documents
	Evaluation   uint32    // tcbEvaluationDataNumber

	Status     verify.Status // of the platform's level
	Advisories []string
	// Dates of the platform's level and, where it is out of date, of the one
	// above it. The zero values mean 400 and 200 days before Issued.
	Date, NewerDate time.Time

	QEStatus     verify.Status // of the quoting enclave's level; dates as above
	QEAdvisories []string

	RevokedPCKs []*big.Int // serial numbers in the PCK CRL
	RevokedCAs  []*big.Int // serial numbers in the root CRL
}

// The types that follow are Intel's documents. Their JSON has the members in
// Intel's order.

// TCBInfo is TCB info of version 3.
type TCBInfo struct {
	ID         string     `json:"id"`
	Version    int        `json:"version"`
	Issued     string     `json:"issueDate"`
	Next       string     `json:"nextUpdate"`
	FMSPC      string     `json:"fmspc"`
	PCEID      string     `json:"pceId"`
	Type       int        `json:"tcbType"`
	Evaluation uint32     `json:"tcbEvaluationDataNumber"`
	Levels     []TCBLevel `json:"tcbLevels"`
}

// TCBLevel is a level of TCBInfo.
type TCBLevel struct {
	TCB        TCB      `json:"tcb"`
	Date       string   `json:"tcbDate"`
	Status     string   `json:"tcbStatus"`
	Advisories []string `json:"advisoryIDs,omitempty"`
}

// TCB is what a platform must reach.
type TCB struct {
	Components []Component `json:"sgxtcbcomponents"`
	PCESVN     int         `json:"pcesvn"`
}

// Component is one of 16.
type Component struct {
	SVN int `json:"svn"`
}

// QEIdentity is QE identity of version 2.
type QEIdentity struct {
	ID             string    `json:"id"`
	Version        int       `json:"version"`
	Issued         string    `json:"issueDate"`
	Next           string    `json:"nextUpdate"`
	Evaluation     uint32    `json:"tcbEvaluationDataNumber"`
	MiscSelect     string    `json:"miscselect"`
	MiscMask       string    `json:"miscselectMask"`
	Attributes     string    `json:"attributes"`
	AttributesMask string    `json:"attributesMask"`
	MRSigner       string    `json:"mrsigner"`
	ISVProdID      int       `json:"isvprodid"`
	Levels         []QELevel `json:"tcbLevels"`
}

// QELevel is a level of QEIdentity.
type QELevel struct {
	TCB        QETCB    `json:"tcb"`
	Date       string   `json:"tcbDate"`
	Status     string   `json:"tcbStatus"`
	Advisories []string `json:"advisoryIDs,omitempty"`
}

// QETCB is what a quoting enclave must reach.
type QETCB struct {
	ISVSVN int `json:"isvsvn"`
}

// Time writes a time as Intel's documents do.
func Time(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func orUpToDate(s verify.Status) verify.Status {
	if s == 0 {
		return verify.UpToDate
	}
	return s
}

const day = 24 * time.Hour

func (t Terms) dates() (own, newer string) {
	date, newerDate := t.Date, t.NewerDate
	if date.IsZero() {
		date = t.Issued.Add(-400 * day)
	}
	if newerDate.IsZero() {
		newerDate = t.Issued.Add(-200 * day)
	}
	return Time(date), Time(newerDate)
}

func outOfDate(s verify.Status) bool {
	return s == verify.OutOfDate || s == verify.OutOfDateConfigurationNeeded || s == verify.Revoked
}

// TCBInfo returns the TCB info for the terms: the level of the platform, below a
// newer one if its status says that it is not the newest.
func (t Terms) TCBInfo() TCBInfo {
	own, newer := t.dates()
	tcb := TCB{PCESVN: int(t.Platform.PCESVN)}
	for _, svn := range t.Platform.Components {
		tcb.Components = append(tcb.Components, Component{int(svn)})
	}
	status := orUpToDate(t.Status)
	levels := []TCBLevel{{tcb, own, status.String(), t.Advisories}}
	if outOfDate(status) {
		next := TCB{slices.Clone(tcb.Components), tcb.PCESVN}
		next.Components[0].SVN++
		levels = slices.Insert(levels, 0, TCBLevel{next, newer, verify.UpToDate.String(), nil})
	}
	return TCBInfo{
		ID: "SGX", Version: 3, Issued: Time(t.Issued), Next: Time(t.Next),
		FMSPC: hex.EncodeToString(t.Platform.FMSPC[:]), PCEID: hex.EncodeToString(t.Platform.PCEID[:]),
		Evaluation: t.Evaluation, Levels: levels,
	}
}

// QEIdentity returns the QE identity for the terms.
func (t Terms) QEIdentity() QEIdentity {
	own, newer := t.dates()
	status := orUpToDate(t.QEStatus)
	levels := []QELevel{{QETCB{QESVN}, own, status.String(), t.QEAdvisories}}
	if outOfDate(status) {
		levels = slices.Insert(levels, 0, QELevel{QETCB{QESVN + 1}, newer, verify.UpToDate.String(), nil})
	}
	signer := QESigner()
	var attributes, mask [16]byte
	binary.LittleEndian.PutUint64(attributes[:], quote.FlagInit|quote.FlagProvisionKey)
	binary.LittleEndian.PutUint64(mask[:], ^quote.FlagMode64)
	return QEIdentity{
		ID: "QE", Version: 2, Issued: Time(t.Issued), Next: Time(t.Next), Evaluation: t.Evaluation,
		MiscSelect: "00000000", MiscMask: "ffffffff",
		Attributes: hex.EncodeToString(attributes[:]), AttributesMask: hex.EncodeToString(mask[:]),
		MRSigner: hex.EncodeToString(signer[:]), ISVProdID: QEProduct, Levels: levels,
	}
}

// Collateral signs all of the collateral for the terms.
func (f *Fleet) Collateral(t Terms) (c verify.Collateral, err error) {
	if c.RootCRL, err = f.Root.CRL(CRL{t.Issued, t.Next, t.RevokedCAs}); err != nil {
		return c, err
	}
	if c.PCKCRL, err = f.PCKCA.CRL(CRL{t.Issued, t.Next, t.RevokedPCKs}); err != nil {
		return c, err
	}
	c.PCKCRLIssuerChain = quote.EncodeChain(f.PCKCA.Cert.Raw, f.Root.Cert.Raw)
	c.TCBInfoIssuerChain = quote.EncodeChain(f.TCBSigner.Cert.Raw, f.Root.Cert.Raw)
	c.QEIdentityIssuerChain = c.TCBInfoIssuerChain
	if c.TCBInfo, c.TCBInfoSignature, err = f.TCBSigner.SignDocument(t.TCBInfo()); err != nil {
		return c, err
	}
	c.QEIdentity, c.QEIdentitySignature, err = f.TCBSigner.SignDocument(t.QEIdentity())
	return c, err
}

// SignDocument writes a document as JSON and signs those bytes.
func (a *Authority) SignDocument(document any) (raw []byte, signature [64]byte, err error) {
	if raw, err = json.Marshal(document); err != nil {
		return nil, signature, fmt.Errorf("encode document: %w", err)
	}
	signature, err = SignRaw(a.Key, raw)
	return raw, signature, err
}
