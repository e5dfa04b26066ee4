package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

func newDomainBackup(a *app) *cobra.Command {
	var dir, out, domain string
	var shares []string
	cmd := &cobra.Command{
		Use:   "backup --dir DIR --out FILE",
		Short: "Write what custodians need to restore the DomainKey",
		Long: `backup puts the manifests, the escrow and the sealed shares of a dkeyserver's domain
directory into one file, and says what is in it. It verifies all of it first: the
manifests, that a TEE of the domain has written the escrow, and that escrow and
shares are for the custodians of the manifest in force.

Nothing in the file is secret. It takes the custodians, and a machine that the
operators admit, to restore the DomainKey from it: see "ehsm domain restore".
Keep it apart from the machines, and make a new one when the DomainKey or the
custodians have changed. The database of the records has backups of its own.`,
		Example: `  ehsm domain backup --dir /var/lib/ehsm/domain --out domain.backup
  ehsm domain backup show domain.backup`,
		Args: args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			if dir == "" || out == "" {
				return usagef("want --dir, the domain directory of a dkeyserver, and --out")
			}
			b, err := collectBackup(dir, shares)
			if err != nil {
				return err
			}
			v, err := viewBackup(b, domain)
			if err != nil {
				return recoveryHint(err)
			}
			if err := a.writeBytes(out, b); err != nil {
				return err
			}
			return a.showBackup(v)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "domain directory of a dkeyserver: a `directory`")
	f.StringVar(&out, "out", "", "`file` for the backup")
	f.StringArrayVar(&shares, "share", nil, "sealed share that is not in the directory: a `file`; may be repeated")
	f.StringVar(&domain, "domain", "", "`id` that the domain must have, in hex")
	cmd.AddCommand(newBackupShow(a))
	return cmd
}

func newBackupShow(a *app) *cobra.Command {
	var domain string
	cmd := &cobra.Command{
		Use:     "show FILE",
		Short:   "Verify a backup and say what is in it",
		Example: `  ehsm domain backup show --domain 9a31...f0 domain.backup`,
		Args:    args(1, 1),
		RunE: func(_ *cobra.Command, paths []string) error {
			b, err := readRecovery(paths[0])
			if err != nil {
				return err
			}
			v, err := viewBackup(b, domain)
			if err != nil {
				return recoveryHint(fmt.Errorf("%s: %w", paths[0], err))
			}
			return a.showBackup(v)
		},
	}
	cmd.Flags().StringVar(&domain, "domain", "", "`id` that the domain must have, in hex")
	return cmd
}

// readRecovery reads a file of a recovery, and no more of it than shows that it is
// none.
func readRecovery(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, escrow.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b, nil
}

// collectBackup makes a backup of a domain directory and of shares that are elsewhere. It
// leaves out shares of earlier recovery keys, which nothing in force needs.
func collectBackup(dir string, more []string) ([]byte, error) {
	manifests, err := domainFiles(dir)
	if err != nil {
		return nil, err
	}
	b := new(escrow.Backup)
	for _, path := range manifests {
		m, err := readSmall(path)
		if err != nil {
			return nil, err
		}
		b.Manifests = append(b.Manifests, m)
	}
	states, err := escrow.Chain(b.Manifests, time.Now())
	if err != nil {
		return nil, manifestHint(err)
	}
	state := states[len(states)-1]
	if state.Recovery == nil {
		return nil, recoveryHint(escrow.ErrNoRecovery)
	}
	if b.Escrow, err = readRecovery(filepath.Join(dir, escrow.File)); err != nil {
		return nil, withHint(err, "ehsm-dkeyserver serve writes the escrow, within some seconds")
	}
	b.Shares, err = collectShares(dir, more, escrow.KeyID(state.Recovery))
	return b.Encode(), err
}

func collectShares(dir string, more []string, key [32]byte) ([][]byte, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "share-*.sealed"))
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for _, path := range append(paths, more...) {
		b, err := readRecovery(path)
		if err != nil {
			return nil, err
		}
		s, err := escrow.ParseShare(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		same := func(have []byte) bool { return string(have) == string(b) }
		if s.Key == key && !slices.ContainsFunc(all, same) {
			all = append(all, b)
		}
	}
	return all, nil
}

// A backupView is what people see of a backup.
type backupView struct {
	Domain     string    `json:"domain"`
	Manifest   uint64    `json:"manifest"` // version
	Signed     time.Time `json:"manifestDate"`
	Versions   []uint32  `json:"domainKeyVersions"`
	Escrow     time.Time `json:"escrowDate"`
	Threshold  int       `json:"threshold"`
	Custodians []string  `json:"custodians"`
	Missing    []string  `json:"missingShares,omitempty"` // that their custodians must bring
	SHA256     string    `json:"sha256"`                  // of the file
}

func viewBackup(file []byte, domain string) (*backupView, error) {
	b, err := escrow.ParseBackup(file)
	if err != nil {
		return nil, err
	}
	c, err := b.Verify(time.Now())
	if err != nil {
		return nil, err
	}
	s := c.State()
	if err := pinned("the backup", s, domain); err != nil {
		return nil, err
	}
	v := &backupView{
		Domain: s.Domain.String(), Manifest: s.Version, Signed: s.Date, Versions: c.Escrow.Versions, Escrow: c.Escrow.Date,
		Threshold: s.Custodians.Threshold, SHA256: fmt.Sprintf("%x", sha256.Sum256(file)),
	}
	for i, p := range s.Custodians.Members {
		v.Custodians = append(v.Custodians, p.Name)
		if !slices.ContainsFunc(c.Shares, func(s *escrow.Share) bool { return int(s.Index) == i+1 }) {
			v.Missing = append(v.Missing, p.Name)
		}
	}
	return v, nil
}

func (a *app) showBackup(v *backupView) error {
	if len(v.Missing) > 0 {
		a.warn("not in it: the shares of %s, who have them", strings.Join(v.Missing, ", "))
	}
	return a.emit(v, fmt.Sprintf(`domain      %s
manifests   1 to %d, of %s
DomainKey   %s, as of %s
custodians  %d of %s restore it
sha256      %s
`, v.Domain, v.Manifest, v.Signed.Format(time.RFC3339), keyVersions(v.Versions), v.Escrow.Format(time.RFC3339),
		v.Threshold, strings.Join(v.Custodians, ", "), v.SHA256))
}

func keyVersions(versions []uint32) string {
	if len(versions) == 1 {
		return fmt.Sprintf("version %d", versions[0])
	}
	words := make([]string, len(versions))
	for i, v := range versions {
		words[i] = fmt.Sprint(v)
	}
	return "versions " + strings.Join(words, ", ")
}

// recoveryHint says what to do about what is refused.
func recoveryHint(err error) error {
	for _, h := range []struct {
		is   error
		hint string
	}{
		{escrow.ErrRecoveryKey, "custodians have changed: take the share, or the backup, that was made for them"},
		{escrow.ErrNoRecovery, "it was made with --no-recovery; ehsm domain recovery makes a recovery key for custodians"},
		{escrow.ErrSignature, "the file was changed, or is none of the domain; take it from a dkeyserver"},
		{escrow.ErrOpen, "is it your share, and your key?"},
		{escrow.ErrDigest, "it was damaged before it was sealed, or made by somebody else: tell the operators"},
	} {
		if errors.Is(err, h.is) {
			return withHint(err, h.hint)
		}
	}
	return manifestHint(err)
}

// lastOf verifies manifests in files, the genesis first.
func lastOf(paths []string, domain string) (*manifest.State, error) {
	s, err := verifyChain(paths, domain)
	if err != nil {
		return nil, err
	}
	if s.Recovery == nil {
		return nil, recoveryHint(escrow.ErrNoRecovery)
	}
	return s, nil
}

// waitsText says for whom a dkeyserver waits that has no DomainKey, if for anybody.
func (v *statusView) waitsText() string {
	if v.Recovery == nil || v.Recovery.Asked == nil {
		return ""
	}
	return ": " + v.Recovery.Waits()
}

// recoveryText says what custodians could restore.
func (v *statusView) recoveryText() string {
	r := v.Recovery
	switch {
	case r == nil:
		return "none: who loses all dkeyservers loses every key"
	case r.Written.IsZero():
		return fmt.Sprintf("%d of %s, but no escrow", r.Threshold, strings.Join(r.Custodians, ", "))
	}
	return fmt.Sprintf("%d of %s restore %s, as of %s", r.Threshold, strings.Join(r.Custodians, ", "), keyVersions(r.Versions), r.Written.Format("2006-01-02"))
}
