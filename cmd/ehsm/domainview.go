package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest/diff"
)

func newManifestShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE",
		Short: "Show a draft or manifest in words",
		Long: `show says what is in a file, and whose signatures are on it. It verifies no
signature, as the operators who may sign are in the manifest before: see verify.`,
		Example: `  ehsm domain manifest show manifest-2.json`,
		Args:    args(1, 1),
		RunE: func(_ *cobra.Command, paths []string) error {
			doc, err := readDocument(paths[0])
			if err != nil {
				return err
			}
			v := doc.view()
			return a.emit(v, v.text())
		},
	}
}

// A domainView is what people see of a draft or manifest.
type domainView struct {
	Format    string     `json:"format"`
	Domain    string     `json:"domain,omitempty"`
	Version   uint64     `json:"version,omitempty"`
	Date      *time.Time `json:"date,omitempty"`
	Hash      string     `json:"hash,omitempty"`
	Previous  string     `json:"previous,omitempty"`
	DomainKey []byte     `json:"domainKey,omitempty"`
	Recovery  bool       `json:"recovery"` // a recovery key was made
	manifest.Terms
	Signers [][]byte `json:"signers,omitempty"` // their keys; not verified
}

func (d *document) view() domainView {
	if d.draft != nil {
		return domainView{Format: d.draft.Format, Terms: d.draft.Terms}
	}
	return domainViewOf(d.state, d.manifest)
}

// domainViewOf shows a state, with the signatures of m, which may be nil.
func domainViewOf(s *manifest.State, m *manifest.Manifest) domainView {
	v := domainView{
		Format: s.Format, Domain: s.Domain.String(), Version: s.Version, Date: &s.Date, Hash: s.Hash.String(),
		DomainKey: s.DomainKey, Recovery: s.Recovery != nil, Terms: s.Terms,
	}
	if s.Previous != (manifest.Hash{}) {
		v.Previous = s.Previous.String()
	}
	if m != nil {
		for _, sig := range m.Signatures {
			v.Signers = append(v.Signers, sig.Key)
		}
	}
	return v
}

// text renders v for people.
func (v *domainView) text() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	if v.Domain == "" {
		line("draft", "a TEE completes it to the genesis of a domain")
	} else {
		line("domain", "%s", v.Domain)
		line("manifest", "version %d of %s", v.Version, v.Date.Format(time.RFC3339))
		line("hash", "%s", v.Hash)
		line("domain key", "%x", v.DomainKey)
	}
	if v.Previous != "" {
		line("replaces", "%s", v.Previous)
	}
	v.peopleText(line)
	v.settingsText(line)
	for _, key := range v.Signers {
		line("signed by", "%s, not verified", v.signer(key))
	}
	w.Flush()
	return b.String()
}

func (v *domainView) peopleText(line func(name, format string, args ...any)) {
	line("root", "%s", v.Root)
	quorum := func(name string, q *manifest.Quorum) {
		line(name, "%d of %d decide", q.Threshold, len(q.Members))
		for _, p := range q.Members {
			line("", "%s", person(p))
		}
	}
	if len(v.Operators.Members) == 0 {
		line("operators", "none: the settings never change")
	} else {
		quorum("operators", &v.Operators)
	}
	if v.Custodians != nil {
		quorum("custodians", v.Custodians)
	}
	if v.Custodians != nil && !v.Recovery {
		line("recovery", "no key was made; custodians hold nothing")
	}
	if v.Administrator.Name != "" {
		line("administrator", "%s", person(v.Administrator))
	}
}

func person(p manifest.Person) string {
	return fmt.Sprintf("%s, key %s", p.Name, diff.Fingerprint(p.Key))
}

func (v *domainView) settingsText(line func(name, format string, args ...any)) {
	s := &v.Settings
	line("mode", "%s", s.Mode)
	if s.AllowSim {
		line("simulation", "ALLOWED: keys are not protected by hardware")
	}
	if s.HSMWithoutTEE {
		line("HSM", "WITHOUT A TEE: no protection against the host of its dkeyserver")
	}
	line("trust roots", "%s", orNothing(strings.Join(s.TrustRoots, ", ")))
	if len(s.Code) == 0 {
		line("code", "none is admitted to a domain of several TEEs")
	}
	for _, c := range s.Code {
		line("code", "%s %s", c.Role, c.Program())
	}
	if len(s.Platforms) == 0 && !s.AnyPlatform {
		line("platforms", "none is admitted to a domain of several TEEs")
	}
	if s.AnyPlatform {
		line("platforms", "ANY: an attestation key extracted from any machine is enough")
	}
	for _, p := range s.Platforms {
		line("platform", "%s with %s", p.Name, p.Number())
	}
	for _, c := range s.Accept {
		line("accepted", "%s for %s, because: %s", c.Status, c.Advisory, c.Reason)
	}
	line("collateral", "evaluation number %d or higher", s.MinEvaluation)
	if s.SNPMinTCB != (manifest.SNPTCB{}) {
		line("SEV-SNP", "firmware from %v on", s.SNPMinTCB)
	}
	line("grace", "%d hours out of date, %d hours past the collateral's end", s.TCBGrace, s.CollateralGrace)
	line("requests", "timestamps within %d s", s.RequestWindow)
	line("plain enrollment", "%s", s.Enrollment)
	line("deletion", "after %d days", s.DeletionWindow)
	line("switched off", "%s", orNothing(strings.Join(append(texted(s.DisabledKeySpecs), texted(s.DisabledPaddings)...), ", ")))
	line("lease", "%d hours", s.Lease)
	line("audit", "%s", s.Audit)
	if s.SealedOnly {
		line("signed requests", "sealed only")
	}
	limits := []string{}
	for _, l := range []struct {
		limit int
		what  string
	}{{s.Limits.RequestsPerSecond, "requests a second"}, {s.Limits.Burst, "at once"}, {s.Limits.Keys, "keys"}, {s.Limits.Secrets, "secrets"}} {
		if l.limit != 0 {
			limits = append(limits, fmt.Sprintf("%d %s", l.limit, l.what))
		}
	}
	line("limits of an app", "%s", orNothing(strings.Join(limits, ", ")))
}

// signer names the owner of a key if the manifest itself has it.
func (v *domainView) signer(key []byte) string {
	if p, ok := v.Operators.Member(key); ok {
		return p.Name
	}
	return "key " + diff.Fingerprint(key)
}

func texted[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return out
}

func orNothing(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
