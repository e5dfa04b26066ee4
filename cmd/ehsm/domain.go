package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest/diff"
)

func newDomain(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "domain",
		Short: "Found a domain, look at it, and change it",
		Long: `A domain is all nodes that share one DomainKey. What decides its security is in a
manifest: a public file that operators sign, k of n of them. The first manifest is
the genesis, and its hash is the domain id.

keygen, public, manifest and show work on files. init founds a domain; backup and
restore, with custodian, are for when its machines are lost. status,
nodes, admit, remove and submit ask the dkeyserver of this machine, and so see the
running domain. docs/domain.md has the whole ceremony.`,
		Example: `  ehsm domain keygen --duty operator --name alice --out alice.key
  ehsm domain status
  ehsm domain admit --waiting 1 --name "node 3"`,
	}, newDomainKeygen(a), newDomainPublic(a), newDomainManifest(a), newDomainShow(a), newDomainInit(a),
		newDomainStatus(a), newDomainNodes(a), newDomainAdmit(a), newDomainRemove(a), newDomainSubmit(a),
		newDomainRotate(a), newDomainCompromise(a), newDomainForget(a),
		newDomainBackup(a), newDomainRestore(a), newDomainRecovery(a), newDomainCustodian(a))
}

func newDomainKeygen(a *app) *cobra.Command {
	var duty, name, out string
	cmd := &cobra.Command{
		Use:   "keygen --duty DUTY --name NAME --out FILE",
		Short: "Make the key of an operator, custodian or administrator",
		Long: `keygen makes a key pair. The private key is in FILE, which only you can read: keep
it offline. The public key is in FILE.pub and on standard output: pass it on. The
fingerprint, on standard error, is what people compare by another way, such as the
telephone; "ehsm domain manifest show" has that of everybody.

  operator       signs manifests: together, operators admit code and machines
  custodian      keeps a share of the recovery key
  administrator  sets up the domain's first tenants

Each duty has keys of its own. No file is overwritten.`,
		Example: `  ehsm domain keygen --duty operator --name alice --out alice.key`,
		Args:    args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			d := manifest.Duty(duty)
			switch {
			case !slices.Contains(manifest.Duties(), d):
				return usagef("duty is %q, want operator, custodian or administrator", duty)
			case out == "":
				return usagef("no --out, where the private key goes")
			}
			return a.keygen(d, name, out)
		},
	}
	cmd.Flags().StringVar(&duty, "duty", "", "`duty` of the key: operator, custodian or administrator")
	cmd.Flags().StringVar(&name, "name", "", "`name` of its owner: letters, digits and . _ @ -")
	cmd.Flags().StringVar(&out, "out", "", "`file` for the private key; the public one is in FILE.pub")
	return cmd
}

func (a *app) keygen(d manifest.Duty, name, out string) error {
	k, err := newKeyFile(d, name)
	if err != nil {
		return usageError{err}
	}
	defer clear(k.secret)
	if err := writeNew(out, k.text(), 0o600); err != nil {
		return err
	}
	if err := writeNew(out+".pub", k.public(), 0o644); err != nil {
		return err
	}
	return a.showPublic(k.duty, k.person)
}

func newDomainPublic(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "public FILE",
		Short:   "Print the public half of a key file",
		Example: `  ehsm domain public alice.key > alice.key.pub`,
		Args:    args(1, 1),
		RunE: func(_ *cobra.Command, paths []string) error {
			k, err := readKeyFile(paths[0])
			if err != nil {
				return err
			}
			defer clear(k.secret)
			return a.showPublic(k.duty, k.person)
		},
	}
}

func (a *app) showPublic(d manifest.Duty, p manifest.Person) error {
	v := struct {
		Duty manifest.Duty `json:"duty"`
		Name string        `json:"name"`
		Key  []byte        `json:"key"`
		Line string        `json:"line"`

		Fingerprint string `json:"fingerprint"`
	}{d, p.Name, p.Key, p.PublicText(d), diff.Fingerprint(p.Key)}
	a.warn("fingerprint %s", v.Fingerprint)
	return a.emit(v, v.Line)
}

func newDomainShow(a *app) *cobra.Command {
	var domain string
	cmd := &cobra.Command{
		Use:   "show DIR",
		Short: "Verify the manifests of a domain directory and show what is in force",
		Long: `show reads genesis.json and manifest-N.json of a domain directory, as a core does
when it starts, and verifies that each is signed by operators that the one before
it names. Whoever can write the directory can put another domain there: --domain
pins the id that you know. That the last manifests were taken away files cannot
show: compare the version with the one you signed.`,
		Example: `  ehsm domain show /var/lib/ehsm/domain
  ehsm domain show --domain 9a31...f0 --output json ~/.local/state/ehsm/domain`,
		Args: args(1, 1),
		RunE: func(_ *cobra.Command, dirs []string) error {
			paths, err := domainFiles(dirs[0])
			if err != nil {
				return err
			}
			s, err := verifyChain(paths, domain)
			if err != nil {
				return err
			}
			v := domainViewOf(s, nil)
			return a.emit(v, v.text())
		},
	}
	cmd.Flags().StringVar(&domain, "domain", "", "`id` that the domain must have, in hex")
	return cmd
}

// domainFiles names the manifests of a domain directory in their order.
func domainFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	versions, err := manifest.Versions(names)
	if err != nil {
		return nil, err
	}
	paths := []string{filepath.Join(dir, manifest.GenesisFile)}
	for _, v := range versions {
		paths = append(paths, filepath.Join(dir, manifest.FileName(v)))
	}
	return paths, nil
}

// verifyChain verifies manifests in the order of their files, the genesis first.
func verifyChain(paths []string, domain string) (*manifest.State, error) {
	var s *manifest.State
	for i, path := range paths {
		b, err := readSmall(path)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			if s, err = manifest.Open(b); err == nil {
				err = pinned(path, s, domain)
			}
		} else {
			s, err = s.Next(b, time.Now())
		}
		if err != nil {
			return nil, manifestHint(fmt.Errorf("verify %s: %w", path, err))
		}
	}
	return s, nil
}

// readSmall reads a small file, and no more of it than shows that it is not.
func readSmall(path string) ([]byte, error) {
	const limit = 1<<20 + 1 // bytes; one more than a manifest may have
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b, nil
}
