package main

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest/diff"
)

func newManifestDiff(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Say in words what a manifest changes",
		Long: `diff compares two drafts or manifests. A line with WEAKER lowers what the domain
asks for; one with ADMITS lets code, a machine or a person in that was not in.
It verifies no signature: see verify, and sign.`,
		Example: `  ehsm domain manifest diff genesis.json manifest-2.json`,
		Args:    args(2, 2),
		RunE: func(_ *cobra.Command, paths []string) error {
			old, err := readDocument(paths[0])
			if err != nil {
				return err
			}
			new, err := readDocument(paths[1])
			if err != nil {
				return err
			}
			list := changesOf(old, new)
			v := struct {
				Hash    string        `json:"hash,omitempty"`
				Changes []diff.Change `json:"changes"`
			}{new.hash(), list}
			return a.emit(v, changesText(list))
		},
	}
}

// hash is what operators sign, "" of a draft.
func (d *document) hash() string {
	if d.state == nil {
		return ""
	}
	return d.state.Hash.String()
}

// changesOf compares documents, and what TEEs made if both are manifests.
func changesOf(old, new *document) []diff.Change {
	list := []diff.Change{}
	if old.state != nil && new.state != nil {
		return append(list, diff.Statements(&old.state.Statement, &new.state.Statement)...)
	}
	return append(list, diff.Terms(old.terms(), new.terms())...)
}

func changesText(list []diff.Change) string {
	if len(list) == 0 {
		return "nothing changes\n"
	}
	var b strings.Builder
	for _, c := range list {
		fmt.Fprintln(&b, c)
	}
	return b.String()
}

// tellChanges shows changes beside a result.
func (a *app) tellChanges(list []diff.Change) {
	for line := range strings.Lines(changesText(list)) {
		a.warn("%s", strings.TrimSuffix(line, "\n"))
	}
}

func newManifestSign(a *app) *cobra.Command {
	var keyPath, previous string
	var weaker bool
	cmd := &cobra.Command{
		Use:   "sign --key FILE --previous FILE MANIFEST",
		Short: "Add your signature to a manifest",
		Long: `sign shows what the manifest changes and adds an operator's signature, in the file.
--previous is your own copy of the manifest in force, or of the draft, for a
genesis: sign refuses what does not follow from it, whoever signed it already. A
genesis must be exactly the draft, with the keys that a TEE has added.

A manifest that makes anything weaker is signed only with --weaker. Do not give it
before you have read each of those lines.`,
		Example: `  ehsm domain manifest sign --key alice.key --previous genesis.json manifest-2.json`,
		Args:    args(1, 1),
		RunE: func(_ *cobra.Command, paths []string) error {
			if keyPath == "" || previous == "" {
				return withHint(usagef("want --key and --previous"), "--previous is your own copy of the manifest in force, or of the draft")
			}
			old, err := readDocument(previous)
			if err != nil {
				return err
			}
			k, err := readKeyFile(keyPath)
			if err != nil {
				return err
			}
			defer clear(k.secret)
			return a.signManifest(k, old, paths[0], weaker)
		},
	}
	f := cmd.Flags()
	f.StringVar(&keyPath, "key", "", "your key `file`")
	f.StringVar(&previous, "previous", "", "your own copy of the manifest in force, or of the draft: a `file`")
	f.BoolVar(&weaker, "weaker", false, "sign although something becomes weaker")
	return cmd
}

func (a *app) signManifest(k *keyFile, old *document, path string, weaker bool) error {
	new, err := readDocument(path)
	if err != nil {
		return err
	}
	if new.manifest == nil {
		return withHint(fmt.Errorf("%s is nothing to sign", path), "a draft is signed when a TEE has completed it to the genesis")
	}
	if err := old.leads(new.manifest); err != nil {
		return manifestHint(fmt.Errorf("%s: %w", path, err))
	}
	operators := &old.terms().Operators
	if _, ok := operators.Member(k.person.Key); !ok || k.duty != manifest.Operator {
		return withHint(fmt.Errorf("the key of %s %s is no operator's of the manifest in force", k.duty, k.person.Name), "ehsm domain manifest show lists the operators")
	}
	changes := changesOf(old, new)
	a.tellChanges(changes)
	for _, c := range changes {
		if c.Effect == diff.Weaker && !weaker {
			return withHint(errors.New("not signed: something becomes weaker"), "read the lines above, and add --weaker if all of it is meant")
		}
	}
	if err := new.manifest.Sign(k.signer()); err != nil {
		return err
	}
	b, err := new.manifest.Encode()
	if err != nil {
		return err
	}
	enough := old.accepts(b)
	if enough != nil && !errors.Is(enough, manifest.ErrQuorum) {
		return manifestHint(fmt.Errorf("%s: %w", path, enough))
	}
	if err := a.writeBytes(path, b); err != nil {
		return err
	}
	return a.tellSigned(new.manifest, operators, k.person.Name)
}

// leads reports why a document is no reason to sign a manifest.
func (d *document) leads(m *manifest.Manifest) error {
	if d.draft == nil {
		return d.state.Leads(m, time.Now())
	}
	s := &m.Statement
	switch {
	case s.Version != 1:
		return fmt.Errorf("%w: version %d does not come from a draft", manifest.ErrPrevious, s.Version)
	case !reflect.DeepEqual(s.Terms, d.draft.Terms):
		return fmt.Errorf("%w: it is not as the draft has it; ehsm domain manifest diff shows where", manifest.ErrPrevious)
	case s.Date.After(time.Now().Add(24 * time.Hour)):
		return fmt.Errorf("%w: %s is ahead of the clock", manifest.ErrDate, s.Date.Format(time.RFC3339))
	}
	return nil
}

// accepts verifies the signatures on a manifest that d leads to.
func (d *document) accepts(file []byte) error {
	if d.draft == nil {
		_, err := d.state.Next(file, time.Now())
		return err
	}
	_, err := manifest.Open(file)
	return err
}

func (a *app) tellSigned(m *manifest.Manifest, operators *manifest.Quorum, name string) error {
	v := struct {
		Hash       string `json:"hash"`
		Signer     string `json:"signer"`
		Signatures int    `json:"signatures"`
		Threshold  int    `json:"threshold"`
	}{m.Hash().String(), name, len(m.Signatures), operators.Threshold}
	return a.emit(v, fmt.Sprintf("%s signed %s: %d signatures, it takes %d\n", name, v.Hash, v.Signatures, v.Threshold))
}

func newManifestVerify(a *app) *cobra.Command {
	var domain string
	cmd := &cobra.Command{
		Use:   "verify GENESIS [MANIFEST...]",
		Short: "Verify a chain of manifests from the genesis on",
		Long: `verify checks that a quorum of its own operators has signed the genesis, and that
each manifest is signed by a quorum of operators that the one before it names. Give
all manifests in their order. Anybody can make a domain: --domain pins the id that
you know. It prints the domain id, and version and hash of the last manifest.`,
		Example: `  ehsm domain manifest verify genesis.json
  ehsm domain manifest verify --domain 9a31...f0 genesis.json manifest-2.json manifest-3.json`,
		Args: args(1, -1),
		RunE: func(_ *cobra.Command, paths []string) error {
			s, err := verifyChain(paths, domain)
			if err != nil {
				return err
			}
			v := struct {
				Domain  string        `json:"domain"`
				Version uint64        `json:"version"`
				Date    time.Time     `json:"date"`
				Hash    string        `json:"hash"`
				Mode    manifest.Mode `json:"mode"`
			}{s.Domain.String(), s.Version, s.Date, s.Hash.String(), s.Settings.Mode}
			return a.emit(v, fmt.Sprintf("domain %s\nmanifest %d of %s, %s\n", v.Domain, v.Version, v.Date.Format(time.RFC3339), v.Hash))
		},
	}
	cmd.Flags().StringVar(&domain, "domain", "", "`id` that the domain must have, in hex")
	return cmd
}

// pinned refuses another domain than the one that is known.
func pinned(path string, s *manifest.State, domain string) error {
	if domain != "" && !strings.EqualFold(domain, s.Domain.String()) {
		return fmt.Errorf("%s is of the domain %s, want %s", path, s.Domain, domain)
	}
	return nil
}

// manifestHint says what to do about a manifest that is refused.
func manifestHint(err error) error {
	for _, h := range []struct {
		is   error
		hint string
	}{
		{manifest.ErrQuorum, "ehsm domain manifest sign"},
		{manifest.ErrPrevious, "give all manifests in their order, each signed under the one before; a manifest that was prepared from another is prepared again"},
		{manifest.ErrVersion, "the manifest in force is as new or newer; prepare the change again from it: ehsm domain manifest edit"},
		{manifest.ErrDomain, "the genesis comes first and once; a manifest is of one domain only"},
		{manifest.ErrSigner, "only operators whom the manifest before names can sign, not those whom it brings"},
		{manifest.ErrRecovery, "new custodians need a recovery key that a TEE makes for them: ehsm domain recovery MANIFEST"},
		{manifest.ErrEndorsed, "do not sign: somebody else may have the recovery key; ehsm domain recovery makes one in a TEE of the domain"},
		{manifest.ErrFixed, "only a new domain has another; make one"},
		{manifest.ErrFinal, "it was made for trying things, or before there were manifests"},
	} {
		if errors.Is(err, h.is) {
			return withHint(err, h.hint)
		}
	}
	return err
}
