package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
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
		part := d.dated(e.name, e.Next, 0, hintExpired, "issued %s, in force until", instant(e.Issued))
		if d.now.Before(e.Issued) {
			part = problem(e.name, hintEarly, "issued %s, which is in the future", instant(e.Issued))
		}
		all = append(all, part)
	}
	return all
}

// stepWords says what a check of verify asks, in the order in which they run.
var stepWords = [...]struct {
	step  verify.Step
	words string
}{
	{verify.StepParse, "it is a quote of a kind that can be verified"},
	{verify.StepPCKChain, "the certificate of the machine comes from a trusted root"},
	{verify.StepCRL, "neither it nor its CA has been revoked"},
	{verify.StepSGXExtension, "it says which machine it is for"},
	{verify.StepQEReport, "the quoting enclave of that machine vouches for its key"},
	{verify.StepQuoteSignature, "that key has signed the quote"},
	{verify.StepTCBInfo, "the statement about this kind of machine is signed and in force"},
	{verify.StepQEIdentity, "the quoting enclave is the one that is known to be good"},
	{verify.StepTCBLevel, "the machine's firmware is one that the statement lists"},
}

// genuineChecks shows the steps of the verification up to the one that failed.
func genuineChecks(f *finding) []check {
	var all []check
	failed := false
	for _, s := range stepWords {
		switch name := s.step.String(); {
		case failed:
			all = append(all, skipped(name, "%s", s.words))
		case f.Answer != answerYes && f.Step == name:
			failed = true
			all = append(all, problem(name, f.Hint, "%s", f.Reason))
		default:
			all = append(all, passed(name, "%s", s.words))
		}
	}
	if f.Answer != answerYes && !failed {
		all = []check{problem("genuine", f.Hint, "%s", f.Reason)}
	}
	return all
}

// tcbOutlook says when a machine that is out of date, or that needs what the
// policy does not accept, will be refused.
func (d *doctor) tcbOutlook(t *tcbView) check {
	const name = "TCB"
	grace := time.Duration(validate.DefaultTCBGrace)
	if d.policy != nil {
		grace = d.policy.TCBGrace
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

// outlook predicts what ends when.
func (d *doctor) outlook() []check {
	if d.contents == nil {
		return []check{skipped("dates", "no collateral")}
	}
	first := endsFirst(d.contents)
	all := []check{
		d.dated("collateral", first.Next, soon, "see that its source is reached and refreshed: a fresh one lasts for about 30 days",
			"if it is not refreshed, the %s ends first,", first.name),
		d.dated("certificates", d.contents.CertsExpire, near, "fetch the collateral again; if they stay, ask its source", "those in the collateral end"),
	}
	if d.verdict == nil {
		return all
	}
	if q := d.verdict.Quote; q != nil && q.Platform != nil {
		all = append(all, d.dated("machine", q.Platform.NotAfter, near, "have the machine get a new PCK certificate", "its PCK certificate ends"))
	}
	if t := d.verdict.TCB; t != nil {
		all = append(all, d.tcbOutlook(t))
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
	all := []check{passed("file", "%s names %s and %s", d.flags.policy, number(len(d.policy.Enclaves), "enclave"), machinesOf(d.policy))}
	for _, w := range d.policy.Warnings() {
		all = append(all, noted("warning", "%s", w))
	}
	switch {
	case d.verdict == nil || d.verdict.Genuine.Answer != answerYes:
		return append(all, skipped("wanted", "not shown to be genuine"))
	case d.verdict.Wanted.Answer == answerYes:
		return append(all, passed("wanted", "%s", d.verdict.wantedText()))
	}
	return append(all, problem(d.verdict.Wanted.Step, d.verdict.Wanted.Hint, "%s", d.verdict.Wanted.Reason))
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
	const name = "wanted"
	if d.verdict == nil || d.verdict.Quote == nil {
		return noted(name, "not asked: no --policy")
	}
	return noted(name, "not asked: no --policy. The enclave has MRENCLAVE %s", d.verdict.Quote.Enclave.MREnclave).
		with("compare that with what its builder publishes, and put it into a policy: docs/formats.md#attestation-policy-v1")
}
