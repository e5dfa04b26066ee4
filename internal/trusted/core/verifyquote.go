package core

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	attestadmission "github.com/ehsm-kms/ehsm/internal/attest/admission"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	dcapvalidate "github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

const (
	maxQuote     = 8192                   // bytes
	maxQuoteText = (maxQuote + 2) / 3 * 4 // characters of base64
)

// An anchor is a root certificate under which quotes are genuine.
type anchor struct {
	root      *x509.Certificate
	simulated bool
}

// A judge decides about quotes for tenants. Roots, accepted TCB statuses and the
// least tcbEvaluationDataNumber are the domain's.
type judge struct {
	anchors []anchor
	policy  dcapvalidate.Policy // without enclaves
	floors  *floors
}

// newJudge takes what decides about quotes from the settings. It does not rely on
// the rules of package manifest: a root that could pass for Intel's, or any beside
// Intel's in a domain without simulation, ends the start.
func newJudge(s *manifest.Settings, floors *floors) (*judge, error) {
	j := &judge{policy: dcapvalidate.Policy{AnyPlatform: true, MinTCBEvaluation: s.MinEvaluation}, floors: floors}
	if slices.Contains(s.TrustRoots, manifest.IntelSGX) { // check: root-trusted
		j.anchors = append(j.anchors, anchor{verify.IntelRoot(), false})
	}
	if len(s.SimRoot) > 0 {
		if !s.AllowSim { // check: sim-root-allowed
			return nil, errors.New("the manifest has a simulated root but does not allow simulated platforms")
		}
		root, err := x509.ParseCertificate(s.SimRoot)
		if err != nil {
			return nil, fmt.Errorf("simulated root of the manifest: %w", err)
		}
		if !slices.Contains(root.Subject.Organization, verify.SimulationOrganization) { // check: sim-root-marked
			return nil, errors.New("the simulated root of the manifest is not marked as one")
		}
		j.anchors = append(j.anchors, anchor{root, true})
	}
	var err error
	j.policy.Accepted, err = attestadmission.Accepted(s.Accept)
	return j, err
}

// verify says whether a quote is genuine, and refuses collateral that is older
// than what was verified before.
func (j *judge) verify(q []byte, c verify.Collateral, now time.Time) (verify.Result, error) {
	a, ok := j.anchor(q)
	if !ok {
		return verify.Result{}, errServer("quote of an unknown root")
	}
	policy := j.policy
	policy.AllowSim = a.simulated
	r, err := verify.Verify(q, c, policy.Options([]*x509.Certificate{a.root}, now))
	if err != nil { // check: quote-genuine
		j.learn(a, c, err)
		return r, errServer(refusedAt(err))
	}
	if !j.floors.accept(platformKind{a.simulated, r.Platform.FMSPC}, r.TCBEvaluation) { // check: collateral-rollback
		return r, errServer("collateral was rolled back")
	}
	policy.Enclaves = []dcapvalidate.Enclave{{Name: "any", MREnclave: r.Report.MREnclave}}
	// What the quote binds is for the caller to check: the action has no challenge.
	in := dcapvalidate.Input{Now: now, ReportData: r.Report.ReportData}
	if _, err := dcapvalidate.Check(&policy, &r, in); err != nil { // check: quote-wanted
		return r, errServer(unwanted(err))
	}
	return r, nil
}

// anchor finds the root in which a quote's chain ends. Verify sees to it that it
// really does.
func (j *judge) anchor(q []byte) (anchor, bool) {
	parsed, err := quote.Parse(q)
	if err != nil {
		return anchor{}, false
	}
	chain, err := parsed.Certificates()
	if err != nil {
		return anchor{}, false
	}
	i := slices.IndexFunc(j.anchors, func(a anchor) bool { return bytes.Equal(a.root.Raw, chain[len(chain)-1]) })
	if i < 0 {
		return anchor{}, false
	}
	return j.anchors[i], true
}

// learn takes note of collateral that has verified although the platform failed
// by it: that it is revoked must not be forgotten for older collateral.
func (j *judge) learn(a anchor, c verify.Collateral, err error) {
	var e *verify.Error
	errors.As(err, &e)
	late := e != nil && e.Step == verify.StepTCBLevel
	if !late && !errors.Is(err, verify.ErrQERevoked) && !errors.Is(err, verify.ErrQELevel) { // check: learn-verified
		return
	}
	if is, err := c.Contents(); err == nil {
		j.floors.accept(platformKind{a.simulated, is.FMSPC}, min(is.TCBInfo.Evaluation, is.QEIdentity.Evaluation))
	}
}

// refusedAt is the reason for the audit entry when a quote does not verify.
func refusedAt(err error) string {
	var e *verify.Error
	if errors.As(err, &e) {
		return "quote is not genuine: " + e.Step.String()
	}
	return "quote is not genuine"
}

// unwanted is the reason when a genuine quote is not accepted.
func unwanted(err error) string {
	switch {
	case errors.Is(err, dcapvalidate.ErrDebug):
		return "quote of a debug enclave"
	case errors.Is(err, dcapvalidate.ErrStatus):
		return "TCB status is not accepted"
	}
	return "quote is not accepted"
}

// malformed is the reason when the bytes are no quote that this build verifies.
func malformed(q []byte, err error) string {
	const reportSize, newest = 1184, 5 // of SEV-SNP attestation reports
	switch {
	case errors.Is(err, quote.ErrTDX):
		return "TDX quote: not built in"
	case len(q) == reportSize && binary.LittleEndian.Uint32(q) >= 2 && binary.LittleEndian.Uint32(q) <= newest:
		return "SEV-SNP report: not built in"
	}
	return "quote is malformed"
}

// collateral returns the host's answer for a quote, or asks for it.
func (x *request) collateral(q []byte) (c verify.Collateral, err error) {
	query, err := verify.QueryOf(q)
	if err != nil {
		return c, errServer(malformed(q, err))
	}
	if !x.call.Collated {
		return c, &needError{collateral: &wire.CollateralQuery{FMSPC: query.FMSPC, CA: query.CA}}
	}
	if len(x.call.Collateral) == 0 {
		return c, errServer("no collateral for the quote")
	}
	if c, err = verify.DecodeCollateral(x.call.Collateral); err != nil {
		return c, errServer("collateral is malformed")
	}
	return c, nil
}

// verifyQuote gives a tenant a signed verdict on a quote. There is one verdict:
// any quote that is not accepted is an error.
func (x *request) verifyQuote() (result, error) {
	q := x.payload.bytes("quote")
	if len(q) > maxQuote { // check: quote-length
		return result{}, bad("The quote's length is invalid.", "quote length")
	}
	named := x.payload.text("policyId") != ""
	policy, err := x.loadPolicy()
	if err != nil {
		return result{}, err
	}
	if named && policy == nil { // check: policy-unknown
		return result{}, bad("Invalid  policyId.", "no such quote policy")
	}
	c, err := x.collateral(q)
	if err != nil {
		return result{}, err
	}
	r, err := x.core.terms.Load().judge.verify(q, c, time.UnixMicro(x.now))
	if err != nil {
		return result{}, err
	}
	if policy != nil && policy.MREnclave != r.Report.MREnclave { // check: policy-enclave
		return result{}, errServer("quote of another enclave")
	}
	if policy != nil && policy.MRSigner != r.Report.MRSigner { // check: policy-signer
		return result{}, errServer("quote of another signer")
	}
	return x.verdict(&r)
}

// verdict is the result for a quote that is accepted.
func (x *request) verdict(r *verify.Result) (result, error) {
	status, err := tcbStatus(r.Status)
	if err != nil {
		return result{}, errInternal("TCB status without a number")
	}
	o := object{}.boolean("result", true).text("nonce", x.payload.text("nonce")).
		text("mr_enclave", hex.EncodeToString(r.Report.MREnclave[:])).text("mr_signer", hex.EncodeToString(r.Report.MRSigner[:])).
		integer("tcbStatus", int64(status))
	tree, err := canon.Parse(slices.Concat(o, []byte("}")))
	if err != nil {
		return result{}, errInternal("verdict does not parse")
	}
	return result{textSuccess, o.base64("sign", x.signVerdict(tree.AppendCanonicalObject(nil, canon.Skipping))).end()}, nil
}

// signVerdict signs the canonical string of a verdict for the holder of the
// request's credential.
func (x *request) signVerdict(message []byte) []byte {
	if x.credential.Kind != record.APIKey {
		return x.core.reply.sign(append([]byte(api.VerdictLabel), message...))
	}
	sum := x.credential.requests.sum(message)
	return sum[:]
}

// tcbStatus is the number by which Intel's quote verification library reports a
// status that a domain can accept. Errors: for any other status.
func tcbStatus(s verify.Status) (api.TCBStatus, error) {
	switch s {
	case verify.UpToDate:
		return api.TCBUpToDate, nil
	case verify.ConfigurationNeeded:
		return api.TCBConfigNeeded, nil
	case verify.OutOfDate:
		return api.TCBOutOfDate, nil
	case verify.OutOfDateConfigurationNeeded:
		return api.TCBOutOfDateConfigNeeded, nil
	case verify.SWHardeningNeeded:
		return api.TCBSWHardeningNeeded, nil
	case verify.ConfigurationAndSWHardeningNeeded:
		return api.TCBConfigAndSWHardeningNeeded, nil
	}
	return 0, fmt.Errorf("TCB status %v has no number", s)
}
