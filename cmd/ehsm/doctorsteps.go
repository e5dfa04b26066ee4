package main

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
)

// Warnings of the outlook, before something ends. Services refresh collateral
// once a day, and it then lasts for about 30 days.
const (
	soon = 3 * 24 * time.Hour
	near = 30 * 24 * time.Hour // certificates and grace periods: time to act
)

// dated makes a check of something that ends at t: a problem if it has ended or
// is about to, in the time given.
func (d *doctor) dated(name string, t time.Time, ahead time.Duration, do, format string, v ...any) check {
	found := fmt.Sprintf(format, v...) + " " + instant(t)
	switch {
	case d.now.After(t):
		return problem(name, do, "%s: over", found)
	case d.now.Add(ahead).After(t):
		return problem(name, do, "%s: %s", found, left(daysLeft(t, d.now)))
	}
	return passed(name, "%s: %s", found, left(daysLeft(t, d.now)))
}

// collateralChecks says of each part of collateral until when it is in force.
func (d *doctor) collateralChecks(c *verify.Contents) []check {
	var all []check
	for _, e := range editions(c) {
		part := d.dated(e.name, e.Next, 0, aboutService(hintExpired), "issued %s, in force until", instant(e.Issued))
		if d.now.Before(e.Issued) {
			part = problem(e.name, aboutService(hintEarly), "issued %s, which is in the future", instant(e.Issued))
		}
		all = append(all, part)
	}
	return all
}

// A stepWord says in words what a check of a verification asks.
type stepWord struct{ step, words string }

// stepWords lists the checks of a kind of evidence in the order in which they run.
func stepWords(kind attest.Kind) []stepWord {
	if kind == attest.SNPReport {
		return []stepWord{
			{snp.StepParse.String(), "it is a report that can be verified"},
			{snp.StepRoot.String(), "the certificates come from a trusted root and are in force"},
			{snp.StepCRL.String(), "nothing of them is known to be revoked"},
			{snp.StepChip.String(), "they are for this chip and its firmware"},
			{snp.StepSignature.String(), "that chip has signed the report"},
		}
	}
	return []stepWord{
		{verify.StepParse.String(), "it is a quote of a kind that can be verified"},
		{verify.StepPCKChain.String(), "the certificate of the machine comes from a trusted root"},
		{verify.StepCRL.String(), "neither it nor its CA has been revoked"},
		{verify.StepSGXExtension.String(), "it says which machine it is for"},
		{verify.StepQEReport.String(), "the quoting enclave of that machine vouches for its key"},
		{verify.StepQuoteSignature.String(), "that key has signed the quote"},
		{verify.StepTCBInfo.String(), "the statement about this kind of machine is signed and in force"},
		{verify.StepQEIdentity.String(), "the quoting enclave is the one that is known to be good"},
		{verify.StepTCBLevel.String(), "the machine's firmware is one that the statement lists"},
	}
}

// genuineChecks shows the steps of the verification up to the one that failed.
func genuineChecks(f *finding, kind attest.Kind) []check {
	var all []check
	failed := false
	for _, s := range stepWords(kind) {
		switch {
		case failed:
			all = append(all, skipped(s.step, "%s", s.words))
		case f.Answer != answerYes && f.Step == s.step:
			failed = true
			all = append(all, problem(s.step, aboutService(cmp.Or(f.Hint, hintForged)), "%s", f.Reason))
		default:
			all = append(all, passed(s.step, "%s", s.words))
		}
	}
	if f.Answer != answerYes && !failed {
		return []check{problem("genuine", aboutService(cmp.Or(f.Hint, hintForged)), "%s", f.Reason)}
	}
	return all
}

// tcbOutlook says when a machine that is out of date, or that needs what the
// policy does not accept, will be refused.
func (d *doctor) tcbOutlook(t *tcbView) check {
	const name = "TCB"
	grace := time.Duration(validate.DefaultTCBGrace)
	switch e := d.evidence; {
	case e.policy != nil:
		grace = e.policy.TCBGrace
	case e.guest.tdxPolicy != nil:
		grace = e.guest.tdxPolicy.Machines.TCBGrace
	}
	switch {
	case t.OutOfDateSince != nil:
		until := t.OutOfDateSince.Add(grace)
		return d.dated(name, until, grace, "update the BIOS and microcode of the machine, then have it register again; "+
			"services that know the machine accept it until then, others refuse it already",
			"%s since %s; the grace period of %s ends", t.Status, t.OutOfDateSince.Format(time.DateOnly), days(grace))
	case t.Status != verify.UpToDate.String():
		return noted(name, "%s: only a policy that accepts each of %v accepts it", t.Status, t.Advisories)
	}
	return passed(name, "UpToDate; after Intel's next TCB recovery there are %s to update the machine", days(grace))
}

func days(d time.Duration) string {
	if d%(24*time.Hour) != 0 {
		return d.String()
	}
	return number(int(d/(24*time.Hour)), "day")
}

// What to do before collateral ends.
const (
	hintRefresh = "see that its source is reached and refreshed: a fresh one lasts for about 30 days"
	hintCerts   = "fetch the collateral again; if they stay, ask its source"
)

// outlook predicts what ends when.
func (d *doctor) outlook() []check {
	var all []check
	if d.contents != nil {
		first := endsFirst(d.contents)
		all = append(all, d.dated("collateral", first.Next, soon, hintRefresh, "if it is not refreshed, the %s ends first,", first.name),
			d.dated("certificates", d.contents.CertsExpire, near, hintCerts, "those in the collateral end"))
	}
	if d.verdict != nil {
		all = append(all, d.machineOutlook(d.verdict)...)
	}
	if all == nil {
		return []check{skipped("dates", "no collateral")}
	}
	return all
}

// machineOutlook is what the evidence adds to the outlook.
func (d *doctor) machineOutlook(v *verdict) (all []check) {
	if v.Quote != nil && v.Quote.Platform != nil {
		all = append(all, d.dated("machine", v.Quote.Platform.NotAfter, near, "have the machine get a new PCK certificate", "its PCK certificate ends"))
	}
	if v.Guest != nil && v.Guest.CertsUntil != nil {
		all = append(all, d.dated("certificates", *v.Guest.CertsUntil, near, "get those of this chip from AMD's key distribution service again", "the first of them ends"))
	}
	if v.TCB != nil && d.contents == nil { // of TDX
		all = append(all, d.dated("collateral", v.TCB.Until, soon, hintRefresh, "if it is not refreshed, the first part of it ends"),
			d.dated("certificates", v.TCB.CertsUntil, near, hintCerts, "the first of them ends"))
	}
	if v.TCB != nil {
		all = append(all, d.tcbOutlook(v.TCB))
	}
	return all
}

// policyChecks says whether the evidence is wanted.
func (d *doctor) policyChecks() []check {
	switch {
	case d.flags.policy == "":
		return []check{d.unasked()}
	case d.policyErr != nil:
		var h hinted
		errors.As(d.policyErr, &h)
		return []check{problem("file", h.hint, "%v", d.policyErr)}
	}
	all := []check{passed("file", "%s%s", d.flags.policy, d.policyWords())}
	for _, w := range d.warnings {
		all = append(all, noted("warning", "%s", w))
	}
	switch {
	case d.verdict == nil || d.verdict.Genuine.Answer != answerYes:
		return append(all, skipped("wanted", "not shown to be genuine"))
	case d.verdict.Wanted.Answer == answerYes:
		return append(all, passed("wanted", "%s", d.verdict.wantedText()))
	}
	return append(all, problem(d.verdict.Wanted.Step, cmp.Or(d.verdict.Wanted.Hint, "compare the policy with what ehsm attest verify prints"), "%s", d.verdict.Wanted.Reason))
}

// policyWords says what a policy for SGX names.
func (d *doctor) policyWords() string {
	if d.evidence == nil || d.evidence.policy == nil {
		return " is a policy"
	}
	p := d.evidence.policy
	return fmt.Sprintf(" names %s and %s", number(len(p.Enclaves), "enclave"), machinesOf(p))
}

func machinesOf(p *validate.Policy) string {
	if p.AnyPlatform {
		return "any machine"
	}
	return number(len(p.Platforms), "machine")
}

// number counts things in English.
func number(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// unasked says what a policy would have to name.
func (d *doctor) unasked() check {
	const name, do = "wanted", "compare that with what its builder publishes, and put it into a policy: docs/formats.md#attestation-policy-v1"
	switch v := d.verdict; {
	case v != nil && v.Quote != nil:
		return noted(name, "not asked: no --policy. The enclave has MRENCLAVE %s", v.Quote.Enclave.MREnclave).with(do)
	case v != nil && v.Guest != nil:
		return noted(name, "not asked: no --policy. The guest has the measurement %s", v.Guest.Measurement).with(do)
	}
	return noted(name, "not asked: no --policy")
}
