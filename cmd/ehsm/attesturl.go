package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/client/ehsm/attested"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
)

// serviceFlags say what a service must prove; see evidenceFlags for the others.
type serviceFlags struct {
	evidenceFlags
	domain   string
	allowSim bool
	pin      bool
}

// A serviceAnswer is what attest verify says of a service.
type serviceAnswer struct {
	URL     string       `json:"url"`
	At      time.Time    `json:"at"`
	Genuine finding      `json:"genuine"`
	Wanted  *finding     `json:"wanted"`
	Service *serviceView `json:"service,omitempty"`
}

// A serviceView is what a genuine service has proved. Byte strings are in
// lower-case hex.
type serviceView struct {
	Kind         string          `json:"kind"`
	Simulated    bool            `json:"simulated"`
	Debug        bool            `json:"debug"`
	Program      string          `json:"acceptedProgram,omitempty"` // entry of the policy
	Machine      string          `json:"acceptedMachine,omitempty"` // entry of the policy
	Measurement  string          `json:"measurement"`
	Signer       string          `json:"signer,omitempty"`
	Product      uint16          `json:"product,omitempty"`
	SVN          uint16          `json:"svn,omitempty"`
	PlatformID   string          `json:"platformId"`
	TCBStatus    string          `json:"tcbStatus"`
	Advisories   []string        `json:"advisories"`
	Evaluation   uint32          `json:"tcbEvaluationDataNumber,omitempty"`
	Expires      *time.Time      `json:"collateralUntil,omitempty"`
	CertsExpire  *time.Time      `json:"certificatesUntil,omitempty"`
	Revocation   bool            `json:"revocationChecked"`
	DomainID     string          `json:"domainId"`
	DomainPinned bool            `json:"domainCompared"`
	Instance     string          `json:"instanceId"`
	HPKEKey      string          `json:"hpkePublicKey"`
	Pin          json.RawMessage `json:"pin,omitempty"` // a policy that accepts this and nothing else
}

// verifyService asks the service of the settings for evidence and judges it.
func (a *app) verifyService(ctx context.Context, f serviceFlags) error {
	cfg, err := a.settings()
	if err != nil {
		return err
	}
	f.domain = cmp.Or(f.domain, a.domainOf(cfg.URL))
	if f.pin && (f.policy == "" || f.policy == "-" || f.domain == "") {
		return withHint(usagef("--pin needs a --policy file and a --domain"), "what they say is what later requests are sealed to")
	}
	v, err := a.verifier(ctx, f)
	if err != nil {
		return err
	}
	client, err := a.plainClient()
	if err != nil {
		return err
	}
	defer client.Close()
	out := &serviceAnswer{URL: cfg.URL, At: v.Now().UTC().Truncate(time.Second), Wanted: unaskedWanted(v.Policy != nil)}
	report, err := v.Verify(ctx, client)
	var refused *attested.Error
	switch {
	case err == nil:
		out.accept(report)
	case errors.As(err, &refused):
		out.refuse(refused)
	default:
		return explainCertificate(ctx, cfg.URL, err)
	}
	if err := a.emit(out, out.text()); err != nil {
		return err
	}
	if err := out.err(); err != nil || !f.pin {
		return err
	}
	return a.pin(cfg.URL, f)
}

// verifier reads what the flags name.
func (a *app) verifier(ctx context.Context, f serviceFlags) (*attested.Verifier, error) {
	now, err := parseAt(f.at)
	if err != nil {
		return nil, err
	}
	if f.reportData != "" {
		return nil, withHint(usagef("--report-data is for files"), "a service is asked with a fresh challenge, which is compared")
	}
	v := &attested.Verifier{AllowSim: f.allowSim, Now: time.Now} // collateral may be issued while it is fetched
	if f.at != "" {
		v.Now = func() time.Time { return now }
	}
	if v.AnyDomain = f.domain == ""; !v.AnyDomain {
		if v.Domain, err = attested.ParseDomain(strings.ToLower(f.domain)); err != nil {
			return nil, withHint(usagef("--domain: %v", err), "ehsm dev prints it; for others ask the operator")
		}
	}
	if f.root != "" {
		if v.Roots, err = a.readRoots(ctx, f.root); err != nil {
			return nil, err
		}
	}
	if f.collateral != "" {
		if v.Collateral, err = a.collateralFor(ctx, f.collateral); err != nil {
			return nil, err
		}
	}
	if v.InsecureSkipPolicy = f.policy == ""; v.InsecureSkipPolicy {
		return v, nil
	}
	b, err := a.readLimited(ctx, f.policy, maxPolicy)
	if err != nil {
		return nil, err
	}
	if v.Policy, err = attested.ParsePolicy(b); err != nil {
		return nil, withHint(fmt.Errorf("read %s: %w", f.policy, err), "docs/formats.md#attestation-policy-v1 has an example")
	}
	for _, w := range v.Policy.Warnings() {
		a.warn("policy: %s", w)
	}
	return v, nil
}

// collateralFor reads collateral for a service whose machine is not known yet:
// of several kinds of machines in a bundle none can be chosen.
func (a *app) collateralFor(ctx context.Context, path string) ([]byte, error) {
	b, err := a.readLimited(ctx, path, verify.MaxBundle)
	if err != nil {
		return nil, err
	}
	all, err := collateral.DecodeBundle(b)
	switch {
	case err != nil: // JSON, or what another kind of evidence needs
		return b, nil
	case len(all) == 1:
		return all[0].Append(nil), nil
	}
	return nil, withHint(usagef("%s has collateral of %d kinds of machines", path, len(all)), "take out the one that the service runs on: ehsm attest collateral export")
}

func unaskedWanted(asked bool) *finding {
	if asked {
		return &finding{Answer: answerUnknown, Reason: "not shown to be genuine"}
	}
	return &finding{Answer: answerUnasked, Reason: "no --policy"}
}

// accept notes what was proved.
func (s *serviceAnswer) accept(r *attested.Report) {
	s.Genuine = finding{Answer: answerYes}
	switch {
	case r.Wanted:
		s.Wanted = &finding{Answer: answerYes}
	case r.Debug: // a policy has to say that it accepts that
		f := refusal(answerNo, policyStep(validate.ErrDebug), validate.ErrDebug)
		s.Wanted = &f
	}
	s.Service = &serviceView{
		Kind: r.Kind, Simulated: r.Simulated, Debug: r.Debug, Program: r.Program, Machine: r.Machine,
		Measurement: r.Measurement, Signer: r.Signer, Product: r.Product, SVN: r.SVN, PlatformID: r.PlatformID,
		TCBStatus: r.TCBStatus, Advisories: append([]string{}, r.Advisories...), Evaluation: r.Evaluation,
		Expires: when(r.Expires), CertsExpire: when(r.CertsExpire), Revocation: r.Revocation,
		DomainID: hex.EncodeToString(r.DomainID[:]), DomainPinned: r.DomainPinned, Instance: r.Instance,
		HPKEKey: hex.EncodeToString(r.HPKEPublicKey),
	}
	if r.Signer != "" { // SGX
		s.Service.Pin = pinEnclave(r.Measurement, r.PlatformID, r.Simulated)
	}
}

// when returns nil for no time.
func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// pinEnclave writes a policy for one enclave on one machine.
func pinEnclave(mrEnclave, ppid string, simulated bool) json.RawMessage {
	type enclave struct {
		Name      string `json:"name"`
		MREnclave string `json:"mrenclave"`
	}
	type platform struct {
		Name string `json:"name"`
		PPID string `json:"ppid"`
	}
	b, err := json.Marshal(struct {
		Format    string     `json:"format"`
		Enclaves  []enclave  `json:"enclaves"`
		Platforms []platform `json:"platforms"`
		AllowSim  bool       `json:"allow_sim,omitempty"`
	}{validate.PolicyFormat, []enclave{{"core", mrEnclave}}, []platform{{"node 1", ppid}}, simulated})
	if err != nil {
		panic(err) // no value of these types fails
	}
	return b
}

// refuse notes what failed.
func (s *serviceAnswer) refuse(e *attested.Error) {
	f := finding{Answer: answerNo, Step: e.Step, Reason: serviceReason(e), Hint: serviceHint(e)}
	switch {
	case errors.Is(e, attested.ErrNotWanted):
		f.Step = policyStep(e.Err)
		s.Genuine, s.Wanted = finding{Answer: answerYes}, &f
		return
	case errors.Is(e, attested.ErrDomain), errors.Is(e, attested.ErrNoEvidence), errors.Is(e, attested.ErrNoCollateral):
		f.Answer = answerUnknown
	}
	s.Genuine = f
}

// serviceReason words a refusal for those who do not know the matter.
func serviceReason(e *attested.Error) string {
	switch {
	case errors.Is(e, attested.ErrSimulated):
		return "the service runs on the simulated platform, where no hardware protects keys"
	case errors.Is(e, attested.ErrNoEvidence), errors.Is(e, attested.ErrNoCollateral), errors.Is(e, attested.ErrChallenge), errors.Is(e, attested.ErrDomain):
		return fmt.Sprintf("%v: %s", e.Kind, printable(e.Err.Error()))
	}
	return printable(e.Err.Error())
}

// serviceHint says what to do about a refused service.
func serviceHint(e *attested.Error) string {
	switch {
	case errors.Is(e, attested.ErrSimulated):
		return hintSimService
	case errors.Is(e, attested.ErrNoEvidence):
		return "is it an eHSM-KMS of this version, on a platform with evidence? its operator finds out with ehsm attest doctor"
	case errors.Is(e, attested.ErrNoCollateral):
		return "name a file with --collateral, which ehsm attest collateral fetch makes; or have the operator configure a source of collateral"
	case errors.Is(e, attested.ErrChallenge):
		return "somebody answers with evidence that was made for another purpose: do not use this service"
	case errors.Is(e, attested.ErrDomain):
		return "its keys are not those that you know: do not use this service, unless its operator says why"
	}
	return aboutService(attestHint(e.Step, e.Err))
}

// aboutService puts a hint about files into words about a service.
func aboutService(hint string) string {
	switch hint {
	case hintForged:
		return "what the service shows is damaged or forged: do not use it"
	case hintExpired:
		return "the service has let its collateral expire: have its operator look at the source of it, or name a fresh one with --collateral; is the clock of this machine right?"
	case hintEarly:
		return "is the clock of this machine right?"
	}
	return hint
}

// err is nil if all that was asked was answered with yes.
func (s *serviceAnswer) err() error {
	f, what := &s.Genuine, "the service is not genuine"
	switch {
	case f.Answer == answerUnknown:
		what = "nothing is known about the service"
	case f.Answer == answerYes && s.Wanted.Answer == answerNo:
		f, what = s.Wanted, "the service is genuine, but not wanted"
	case f.Answer == answerYes:
		return nil
	}
	err := fmt.Errorf("%s: %s: %s", what, f.Step, f.Reason)
	if f.Hint == "" {
		return err
	}
	return withHint(err, f.Hint)
}

// text renders the answer for people.
func (s *serviceAnswer) text() string {
	var b strings.Builder
	genuine := s.Genuine.text()
	switch {
	case s.Genuine.Answer == answerYes && s.Service != nil && s.Service.Simulated:
		genuine = "yes (simulated: no hardware protects these keys)"
	case s.Genuine.Answer == answerYes && s.Service != nil:
		genuine = "yes, " + s.Service.Kind
	case s.Genuine.Answer == answerYes:
		genuine = answerYes
	}
	row(&b, "genuine:", "%s", genuine)
	row(&b, "wanted:", "%s", s.wantedText())
	row(&b, "service:", "%s, asked at %s", s.URL, instant(s.At))
	if s.Service != nil {
		s.Service.write(&b)
	}
	return b.String()
}

func (s *serviceAnswer) wantedText() string {
	switch {
	case s.Wanted.Answer == answerUnasked:
		return "not asked: no --policy; any genuine program would pass, also somebody else's"
	case s.Wanted.Answer != answerYes:
		return s.Wanted.text()
	case s.Service.Machine == "":
		return fmt.Sprintf("yes, as %q on any machine", s.Service.Program)
	}
	return fmt.Sprintf("yes, as %q on machine %q", s.Service.Program, s.Service.Machine)
}

func (v *serviceView) write(b *strings.Builder) {
	if v.Debug {
		row(b, "DEBUG:", "the host can read the memory of this program")
	}
	compared := "as expected"
	if !v.DomainPinned {
		compared = "not compared; --domain does"
	}
	row(b, "domain:", "%s, %s", v.DomainID, compared)
	row(b, "instance:", "%s, of this start of the core", printable(v.Instance))
	row(b, "program:", "measurement %s", v.Measurement)
	if v.Signer != "" {
		row(b, "signer:", "%s, product %d, version %d", v.Signer, v.Product, v.SVN)
	}
	row(b, "machine:", "%s", v.PlatformID)
	row(b, "TCB status:", "%s", v.TCBStatus)
	row(b, "advisories:", "%s", printable(cmp.Or(strings.Join(v.Advisories, " "), "none")))
	row(b, "in force:", "%s", v.force())
	if v.Pin != nil && v.Program == "" {
		fmt.Fprintf(b, "\nTo accept only this program on this machine, compare the measurement with what its\nbuilder publishes, and give --policy a file with:\n%s\n", v.Pin)
	}
}

// force says until when the answer would be the same.
func (v *serviceView) force() string {
	var all []string
	if v.Expires != nil {
		all = append(all, "collateral until "+instant(*v.Expires))
	}
	if v.CertsExpire != nil {
		all = append(all, "certificates until "+instant(*v.CertsExpire))
	}
	if !v.Revocation {
		all = append(all, "revocation was NOT checked")
	}
	return strings.Join(all, ", ")
}
