package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// founding are the flags of ehsm domain init.
type founding struct {
	dkeyserver
	mode string
	root string
	people

	signer, measurements, variant string
	machines, set                 []string
	simRoot                       string
	anyPlatform, noRecovery       bool

	draft, key  string
	prepareOnly bool
}

func newDomainInit(a *app) *cobra.Command {
	c := &founding{dkeyserver: dkeyserver{app: a}}
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Found a domain: write its draft, and have a TEE make its keys",
		Long: `init writes the draft of the domain to a file, and has ehsm-dkeyserver, beside this
program or in the PATH, make the DomainKey in the TEE of this machine. What is left
is genesis.json in EHSM_DKEYSERVER_DOMAIN, for operators to sign, and the domain id.
Settings of ehsm-dkeyserver are in the environment (docs/settings.md). If init was
interrupted, run it again: it goes on, and never makes a second DomainKey.

People   each makes a key on a machine of their own, "ehsm domain keygen", and passes
         FILE.pub on. Operators decide, K of them. Custodians can restore the
         DomainKey when all machines are lost, K of them; a domain that is to be
         lost with its machines takes --no-recovery.
Code     programs that may take part: signed by --signer, an MRSIGNER, as products 1
         (ehsm-core), 2 (ehsm-dkeycache) and 3 (ehsm-dkeyserver); or, on simulated
         machines, exactly those of measurements.json of "make measured".
Machines by name and PPID, at least the one that you are on; "ehsm domain admit" lets
         others in later. --any-platform is for trying things.

Other settings take --set, as "ehsm domain manifest edit" does. --prepare stops
after the draft and prints what to run in the TEE.`,
		Example: `  ehsm domain init --mode production --operator alice.key.pub --operator bob.key.pub \
    --operator carol.key.pub --operator-threshold 2 --custodian dave.key.pub \
    --custodian erin.key.pub --custodian-threshold 2 --administrator frank.key.pub \
    --signer 5f3a...09 --machine "node 1=0123456789abcdef0123456789abcdef"`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVar(&c.mode, "mode", "", "`mode`: production or development")
	f.StringVar(&c.root, "root", string(manifest.Seal), "what protects the DomainKey where it is made: `seal or hsm`")
	f.StringArrayVar(&c.operators, "operator", nil, "`file` with an operator's public key; repeat it")
	f.IntVar(&c.operatorThreshold, "operator-threshold", 0, "`number` of operators that a manifest takes")
	f.StringArrayVar(&c.custodians, "custodian", nil, "`file` with a custodian's public key; repeat it")
	f.IntVar(&c.custodianThreshold, "custodian-threshold", 0, "`number` of custodians that recovery takes")
	f.StringVar(&c.administrator, "administrator", "", "`file` with the first administrator's public key")
	f.BoolVar(&c.noRecovery, "no-recovery", false, "no custodians: if all machines are lost, so is every key")
	f.StringVar(&c.signer, "signer", "", "MRSIGNER of the programs, 64 `hex` digits")
	f.StringVar(&c.measurements, "measurements", "", "measurements.json of \"make measured\": a `file`; simulated machines only")
	f.StringVar(&c.variant, "variant", "default", "with --measurements: `variant` of the build")
	f.StringArrayVar(&c.machines, "machine", nil, "`NAME=PPID` of a machine that is admitted; repeat it")
	f.BoolVar(&c.anyPlatform, "any-platform", false, "admit every machine of the trusted manufacturers")
	f.StringVar(&c.simRoot, "sim-root", "", "PEM `file` of the root of simulated machines; development only")
	f.StringArrayVar(&c.set, "set", nil, "`PATH=VALUE` to set in the draft; repeat it")
	f.StringVar(&c.draft, "draft", "draft.json", "`file` for the draft")
	f.StringVar(&c.key, "key", "", "an operator's key `file`: sign the genesis at once")
	c.flag(f)
	f.BoolVar(&c.prepareOnly, "prepare", false, "only write the draft, and print what to run")
	return cmd
}

// A founded domain is what init prints.
type founded struct {
	Domain     string   `json:"domain,omitempty"` // id; empty if it is only prepared
	Draft      string   `json:"draft"`
	Genesis    string   `json:"genesis"`
	Signatures int      `json:"signatures"`
	Threshold  int      `json:"threshold"`
	Operators  []string `json:"operators"`
}

func (c *founding) run(ctx context.Context) error {
	d, b, err := c.prepare()
	if err != nil {
		return err
	}
	if err := keepDraft(c.draft, b); err != nil {
		return err
	}
	dir := c.directory()
	v := &founded{Draft: c.draft, Genesis: filepath.Join(dir, manifest.GenesisFile), Threshold: d.Operators.Threshold}
	for _, o := range d.Operators.Members {
		v.Operators = append(v.Operators, o.Name)
	}
	if c.prepareOnly {
		return c.app.emit(v, v.preparedText(c.command()))
	}
	id, err := c.make(ctx)
	if err != nil {
		return err
	}
	if v.Domain, err = c.check(v, d, id); err != nil {
		return err
	}
	return c.app.emit(v, v.text())
}

// prepare makes the draft of the flags.
func (c *founding) prepare() (*manifest.Draft, []byte, error) {
	switch {
	case len(c.custodians) == 0 && !c.noRecovery:
		return nil, nil, withHint(usagef("no custodians: if all machines are lost, so is every key"), "name custodians and --custodian-threshold, or give --no-recovery")
	case len(c.custodians) > 0 && c.noRecovery:
		return nil, nil, usagef("--no-recovery is for a domain without custodians")
	case (c.signer == "") == (c.measurements == ""):
		return nil, nil, withHint(usagef("want --signer or --measurements, which say what may take part"), "ehsm-simtee measure, gramine-sgx-sigstruct-view or ego signerid print the signer of a program")
	case (len(c.machines) == 0) == !c.anyPlatform:
		return nil, nil, withHint(usagef("want --machine for each machine, or --any-platform"), "name at least the machine of this dkeyserver, or it would refuse itself")
	}
	d, err := c.people.draft(manifest.Mode(c.mode), manifest.Root(c.root))
	if err != nil {
		return nil, nil, err
	}
	if err := c.admit(&d.Settings); err != nil {
		return nil, nil, err
	}
	terms, err := (&edits{set: c.set}).apply(&d.Terms)
	if err != nil {
		return nil, nil, err
	}
	d.Terms = *terms
	b, err := d.Encode()
	if err != nil {
		return nil, nil, usageError{err}
	}
	if d.Operators.Threshold == 1 && d.Settings.Mode == manifest.Production {
		c.app.warn("one operator alone decides; whoever gets that key gets every key of the domain")
	}
	return d, b, nil
}

// admit puts code and machines into settings.
func (c *founding) admit(s *manifest.Settings) (err error) {
	if s.Code, err = c.code(); err != nil {
		return err
	}
	s.AnyPlatform = c.anyPlatform
	for _, text := range c.machines {
		i := strings.LastIndex(text, "=")
		if i < 0 {
			return usagef("--machine %q, want NAME=PPID", text)
		}
		p := manifest.Platform{Name: text[:i]}
		if err := p.PPID.UnmarshalText([]byte(strings.ToLower(text[i+1:]))); err != nil {
			return usageError{fmt.Errorf("--machine %s: %w", p.Name, err)}
		}
		s.Platforms = append(s.Platforms, p)
	}
	if c.simRoot == "" {
		return nil
	}
	b, err := readSmall(c.simRoot)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return fmt.Errorf("%s is no certificate in PEM", c.simRoot)
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return fmt.Errorf("read %s: %w", c.simRoot, err)
	}
	s.SimRoot = block.Bytes
	return nil
}

// programs are the roles with the names of their programs and their products.
func programs() map[string]string {
	return map[string]string{manifest.RoleCore: "ehsm-core", manifest.RoleDKeyCache: "ehsm-dkeycache", manifest.RoleDKeyServer: dkeyserverName}
}

func (c *founding) code() ([]manifest.Code, error) {
	var list []manifest.Code
	if c.signer != "" {
		var signer manifest.Hash
		if err := signer.UnmarshalText([]byte(strings.ToLower(c.signer))); err != nil {
			return nil, usageError{fmt.Errorf("--signer: %w", err)}
		}
		for i, role := range manifest.Roles() {
			list = append(list, manifest.Code{Role: role, MRSigner: signer, Product: uint16(i + 1), MinSVN: 1})
		}
		return list, nil
	}
	measured, err := readMeasurements(c.measurements, c.variant)
	if err != nil {
		return nil, err
	}
	if manifest.Mode(c.mode) != manifest.Development {
		return nil, withHint(errors.New("measurements.json has what simulated machines measure, which a domain for production does not admit"), "--signer names the signer of the enclaves")
	}
	for _, role := range manifest.Roles() {
		h, ok := measured[programs()[role]]
		if !ok {
			return nil, fmt.Errorf("%s has no %s of the variant %s", c.measurements, programs()[role], c.variant)
		}
		list = append(list, manifest.Code{Role: role, MREnclave: h})
	}
	return list, nil
}

// readMeasurements reads what "make measured" wrote: measurements by program.
func readMeasurements(path, variant string) (map[string]manifest.Hash, error) {
	b, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	var f struct {
		Format   string `json:"format"`
		Binaries []struct {
			Variant   string        `json:"variant"`
			File      string        `json:"file"`
			Simulated manifest.Hash `json:"simulatedMRENCLAVE"`
		} `json:"binaries"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if f.Format != "ehsm-measurements/v1" {
		return nil, fmt.Errorf("%s is no measurements.json: format %.40q", path, f.Format)
	}
	all := map[string]manifest.Hash{}
	for _, p := range f.Binaries {
		if p.Variant == variant {
			all[filepath.Base(p.File)] = p.Simulated
		}
	}
	return all, nil
}

// keepDraft writes the draft, unless it is there: init was interrupted.
func keepDraft(path string, b []byte) error {
	return keep(path, b, "is another draft", "--draft names another file")
}

// command is what makes the domain.
func (c *founding) command() []string {
	args := []string{dkeyserverName, "init"}
	if c.noRecovery {
		args = append(args, "--no-recovery")
	}
	return append(args, c.draft)
}

// make has the TEE make the domain, and returns the id that it prints.
func (c *founding) make(ctx context.Context) (string, error) {
	out, err := c.do(ctx, c.command(), "or --prepare, and run in its TEE", "it said why above; then run this again, it goes on")
	return strings.TrimSpace(out), err
}

// check compares the genesis with the draft, and signs it if --key is there. It
// returns the domain id.
func (c *founding) check(v *founded, d *manifest.Draft, id string) (string, error) {
	b, err := readSmall(v.Genesis)
	if err != nil {
		return "", withHint(err, "EHSM_DKEYSERVER_DOMAIN must be the same for both programs")
	}
	m, err := manifest.Parse(b)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", v.Genesis, err)
	}
	doc := &document{draft: d}
	if err := doc.leads(m); err != nil {
		return "", fmt.Errorf("%s: %w", v.Genesis, err)
	}
	if m.Hash().String() != id {
		return "", fmt.Errorf("ehsm-dkeyserver made the domain %.64q, and %s is of %s", id, v.Genesis, m.Hash())
	}
	if c.key == "" {
		return id, nil
	}
	k, err := readKeyFile(c.key)
	if err != nil {
		return "", err
	}
	defer clear(k.secret)
	if _, ok := d.Operators.Member(k.person.Key); !ok || k.duty != manifest.Operator {
		return "", withHint(fmt.Errorf("the key of %s %s is no operator's", k.duty, k.person.Name), "operators are: "+strings.Join(v.Operators, ", "))
	}
	if err := m.Sign(k.signer()); err != nil {
		return "", err
	}
	v.Signatures = len(m.Signatures)
	if b, err = m.Encode(); err != nil {
		return "", err
	}
	return id, c.app.writeBytes(v.Genesis, b)
}

func (v *founded) preparedText(command []string) string {
	return fmt.Sprintf("%s is the draft of a domain\nnext, in the TEE of the first dkeyserver:\n  %s\n%s", v.Draft, strings.Join(quoteAll(command), " "), v.signText())
}

func (v *founded) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "domain %s\n%s has %d of %d signatures\n", v.Domain, v.Genesis, v.Signatures, v.Threshold)
	if v.Signatures < v.Threshold {
		b.WriteString("next:\n" + v.signText())
	} else {
		b.WriteString("next:\n")
	}
	fmt.Fprintf(&b, "  serve it, and look:\n    %s serve\n    ehsm domain status --domain %s\n", dkeyserverName, v.Domain)
	fmt.Fprintf(&b, "  on each node, ehsm-dkeycache serves this domain with EHSM_DKEYCACHE_DOMAIN_ID=%s\n", v.Domain)
	return b.String()
}

// signText tells operators what to do.
func (v *founded) signText() string {
	return fmt.Sprintf("  %d of %s compare it with the draft and sign, one after the other, in the same file:\n", v.Threshold, strings.Join(v.Operators, ", ")) +
		fmt.Sprintf("    ehsm domain manifest diff %s %s\n", quoteArg(v.Draft), quoteArg(v.Genesis)) +
		fmt.Sprintf("    ehsm domain manifest sign --key KEY --previous %s %s\n", quoteArg(v.Draft), quoteArg(v.Genesis))
}
