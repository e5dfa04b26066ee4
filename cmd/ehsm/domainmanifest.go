package main

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

func newDomainManifest(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "manifest",
		Short: "Prepare, read, sign and verify manifests",
		Long: `A manifest says who may take part in a domain and under which settings. It is a
draft (new, edit) until a TEE has completed it to the genesis; later ones are
prepared from the one in force (edit). Operators read (diff), sign (sign) and
anybody verifies (verify).`,
		Example: `  ehsm domain manifest show genesis.json
  ehsm domain manifest diff genesis.json manifest-2.json`,
	}, newManifestNew(a), newManifestEdit(a), newManifestShow(a), newManifestDiff(a), newManifestSign(a), newManifestVerify(a), newManifestGet(a), newDomainSubmit(a))
}

// people are the flags that name public keys.
type people struct {
	operators, custodians []string
	administrator         string
	operatorThreshold     int
	custodianThreshold    int
}

func newManifestNew(a *app) *cobra.Command {
	var mode, root, out string
	var p people
	cmd := &cobra.Command{
		Use:   "new --mode MODE --operator FILE... --operator-threshold K --administrator FILE",
		Short: "Write the draft of a new domain's genesis",
		Long: `new writes a draft with safe settings: no code and no machine is admitted yet, edit
adds them. In production mode simulated platforms and plain enrollment, in which
the host sees API keys, are excluded; a domain for development has both.

Of the operators, K decide. 2 of 3 is the least where one lost key does not lock
you out and one stolen key decides nothing.`,
		Example: `  ehsm domain manifest new --mode production --operator alice.key.pub \
    --operator bob.key.pub --operator carol.key.pub --operator-threshold 2 \
    --administrator frank.key.pub --out draft.json`,
		Args: args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			d, err := p.draft(manifest.Mode(mode), manifest.Root(root))
			if err != nil {
				return err
			}
			b, err := d.Encode()
			if err != nil {
				return usageError{err}
			}
			if d.Operators.Threshold == 1 && d.Settings.Mode == manifest.Production {
				a.warn("one operator alone decides; whoever gets that key gets every key of the domain")
			}
			return a.writeBytes(out, b)
		},
	}
	f := cmd.Flags()
	f.StringVar(&mode, "mode", "", "`mode`: production or development")
	f.StringVar(&root, "root", string(manifest.Seal), "what protects the DomainKey where it is made: `seal or hsm`")
	f.StringArrayVar(&p.operators, "operator", nil, "`file` with an operator's public key; repeat it")
	f.IntVar(&p.operatorThreshold, "operator-threshold", 0, "`number` of operators that a manifest takes")
	f.StringArrayVar(&p.custodians, "custodian", nil, "`file` with a custodian's public key; repeat it")
	f.IntVar(&p.custodianThreshold, "custodian-threshold", 0, "`number` of custodians that recovery takes")
	f.StringVar(&p.administrator, "administrator", "", "`file` with the first administrator's public key")
	f.StringVar(&out, "out", "", "`file` for the draft; default standard output")
	return cmd
}

// draft has the people of the flags and the default settings.
func (p *people) draft(mode manifest.Mode, root manifest.Root) (*manifest.Draft, error) {
	if mode == "" || len(p.operators) == 0 || p.operatorThreshold == 0 || p.administrator == "" {
		return nil, usagef("want --mode, --operator, --operator-threshold and --administrator")
	}
	if (len(p.custodians) == 0) != (p.custodianThreshold == 0) {
		return nil, usagef("--custodian and --custodian-threshold go together")
	}
	d := &manifest.Draft{Format: manifest.DraftFormat, Terms: manifest.Terms{
		Root: root, Operators: manifest.Quorum{Threshold: p.operatorThreshold}, Settings: manifest.Defaults(mode),
	}}
	administrators, err := readPublic(manifest.Administrator, []string{p.administrator})
	if err != nil {
		return nil, err
	}
	d.Administrator = administrators[0]
	if d.Operators.Members, err = readPublic(manifest.Operator, p.operators); err != nil {
		return nil, err
	}
	if len(p.custodians) > 0 {
		d.Custodians = &manifest.Quorum{Threshold: p.custodianThreshold}
		d.Custodians.Members, err = readPublic(manifest.Custodian, p.custodians)
	}
	return d, err
}

func (a *app) writeBytes(path string, b []byte) error {
	return a.write(path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// A document is what a file of these commands holds: a draft, or a manifest with
// its state. A genesis from before there were manifests has a state only.
type document struct {
	draft    *manifest.Draft
	manifest *manifest.Manifest
	state    *manifest.State
}

func readDocument(path string) (*document, error) {
	b, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	// The draft's error is not worth showing for what is none.
	if strings.Contains(string(b[:min(len(b), 64)]), manifest.DraftFormat) {
		d, err := manifest.ParseDraft(b)
		if err != nil {
			return nil, manifestHint(fmt.Errorf("read %s: %w", path, err))
		}
		return &document{draft: d}, nil
	}
	s, err := manifest.Trust(b)
	if err != nil {
		return nil, manifestHint(fmt.Errorf("read %s: %w", path, err))
	}
	doc := &document{state: s}
	if s.Format == manifest.Format {
		doc.manifest, err = manifest.Parse(b)
	}
	return doc, err
}

// terms are what people decided.
func (d *document) terms() *manifest.Terms {
	if d.draft != nil {
		return &d.draft.Terms
	}
	return &d.state.Terms
}

func newManifestEdit(a *app) *cobra.Command {
	var out string
	var e edits
	cmd := &cobra.Command{
		Use:   "edit FILE --out NEW [--from FILE] [--set PATH=VALUE]... [--add PATH=JSON]... [--remove PATH=NAME]...",
		Short: "Change a draft, or prepare the manifest that follows one",
		Long: `edit changes a draft. Of a signed manifest it prepares the one that follows, with
the next version, today's date and no signatures; the file itself stays.

PATH is that of a member, such as settings.leaseHours or operators.threshold. A
VALUE is JSON or, where it is none, a text. --add appends an object to a list;
@FILE stands for the person whose public key is in FILE. --remove takes the entry of a list away that has that name, role, advisory or text.
--from merges a JSON file, in which null removes a member (RFC 7396). They work in
the order: from, remove, add, set.

What changes is shown on standard error, with WEAKER and ADMITS where a signer
should look twice.`,
		Example: `  ehsm domain manifest edit draft.json --out draft.json \
    --add settings.platforms='{"name":"node 1","ppid":"0123456789abcdef0123456789abcdef"}'
  ehsm domain manifest edit genesis.json --out manifest-2.json --set settings.leaseHours=24
  ehsm domain manifest edit manifest-2.json --out manifest-3.json \
    --remove operators.members=bob --add operators.members=@grace.key.pub`,
		Args: args(1, 1),
		RunE: func(_ *cobra.Command, paths []string) error {
			if out == "" {
				return usagef("no --out, where the result goes")
			}
			doc, err := readDocument(paths[0])
			if err != nil {
				return err
			}
			return a.editManifest(doc, &e, out)
		},
	}
	f := cmd.Flags()
	f.StringVar(&out, "out", "", "`file` for the result")
	f.StringVar(&e.from, "from", "", "JSON `file` to merge")
	f.StringArrayVar(&e.set, "set", nil, "`PATH=VALUE` to set; repeat it")
	f.StringArrayVar(&e.add, "add", nil, "`PATH=JSON` to append to a list; repeat it")
	f.StringArrayVar(&e.remove, "remove", nil, "`PATH=NAME` to take out of a list; repeat it")
	return cmd
}

func (a *app) editManifest(doc *document, e *edits, out string) error {
	terms, err := e.apply(doc.terms())
	if err != nil {
		return err
	}
	next := &document{draft: &manifest.Draft{Format: manifest.DraftFormat, Terms: *terms}}
	var b []byte
	if doc.draft != nil {
		b, err = next.draft.Encode()
	} else {
		b, err = follow(doc, terms)
	}
	if err != nil {
		return manifestHint(err)
	}
	a.tellChanges(changesOf(doc, next))
	if err := a.writeBytes(out, b); err != nil || doc.draft != nil || !needsRecovery(doc.state, terms) {
		return err
	}
	a.warn("a TEE makes the recovery key of the custodians next: ehsm domain recovery %s", out)
	return nil
}

// needsRecovery reports whether terms have other custodians than those for whom the
// recovery key of s was made.
func needsRecovery(s *manifest.State, terms *manifest.Terms) bool {
	return s.Recovery != nil && terms.Custodians != nil && !reflect.DeepEqual(terms.Custodians, s.Custodians)
}

// follow encodes the manifest that follows a document and has terms.
func follow(doc *document, terms *manifest.Terms) ([]byte, error) {
	if doc.manifest != nil && len(doc.manifest.Signatures) == 0 {
		return nil, withHint(errors.New("nobody has signed this manifest; nothing follows it"), "edit the one before again, with all changes")
	}
	m, err := doc.state.Follow(time.Now())
	if err != nil {
		return nil, err
	}
	m.Statement.Terms = *terms
	if !reflect.DeepEqual(terms.Custodians, doc.state.Custodians) {
		m.Statement.Recovery = nil // those who have shares of it are others
	}
	b, err := m.Encode()
	if err != nil {
		return nil, err
	}
	if err := doc.state.Leads(m, time.Now()); !errors.Is(err, manifest.ErrRecovery) || !needsRecovery(doc.state, terms) {
		return b, err
	}
	return b, nil
}
