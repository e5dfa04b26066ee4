package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// A restoring is ehsm domain restore.
type restoring struct {
	dkeyserver
	domain string // id in hex; empty: any
}

func newDomainRestore(a *app) *cobra.Command {
	c := &restoring{dkeyserver: dkeyserver{app: a}}
	cmd := &cobra.Command{
		Use:   "restore BACKUP [MANIFEST...]",
		Short: "Restore a domain on this machine, with its custodians",
		Long: `restore makes the domain directory of a dkeyserver anew, when all dkeyservers of a
domain were lost: on a new machine, of a backup, with custodians. It verifies the
backup, and has ehsm-dkeyserver, beside this program or in the PATH, ask for their
shares in the TEE of this machine. Settings of ehsm-dkeyserver are in the environment
(docs/settings.md); EHSM_DKEYSERVER_DOMAIN names the directory, which must not exist.

  1  The manifest has to admit this machine. If it does not, restore says which machine
     it is, and operators admit it in a manifest that follows the last of the backup:
     give that after BACKUP.
  2  DIRECTORY.restore/request goes to the custodians, who ask the operators, by another
     way, whether all of this is as it should be. Each then runs
       ehsm domain custodian release --key KEY --share SHARE --domain ID --out NAME.answer request
  3  Their answers go beside the request, in any order. With enough of them the
     directory is there, and ehsm-dkeyserver serves it as the root.

restore waits for the answers; when it is ended, its key is lost, and custodians answer
anew. On a machine without seal keys (TDX, SEV-SNP) nothing is kept: the directory is
there at once, and ehsm-dkeyserver serve asks custodians, again after each start.`,
		Example: `  ehsm domain restore --domain 9a31...f0 domain.backup
  ehsm domain restore --domain 9a31...f0 domain.backup manifest-7.json`,
		Args: args(1, -1),
		RunE: func(cmd *cobra.Command, paths []string) error { return c.run(cmd.Context(), paths) },
	}
	c.flag(cmd.Flags())
	cmd.Flags().StringVar(&c.domain, "domain", "", "`id` that the domain must have, in hex, from your own notes")
	return cmd
}

func (c *restoring) run(ctx context.Context, paths []string) error {
	dir := c.directory()
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return withHint(errors.Join(fmt.Errorf("restore to %s: it exists already, and nothing is restored over it", dir), err),
			"EHSM_DKEYSERVER_DOMAIN names the directory; move what is there away if the domain in it is lost")
	}
	v, err := verifiedBackup(paths, c.domain)
	if err != nil {
		return recoveryHint(fmt.Errorf("%s: %w", paths[0], err))
	}
	c.app.warn("domain %s, DomainKey %s as of %s, under manifest %d of %s", v.Domain, keyVersions(v.Versions), v.Escrow.Format(time.RFC3339), v.Manifest, v.Signed.Format(time.RFC3339))
	c.app.warn("%d of %s release their shares", v.Threshold, strings.Join(v.Custodians, ", "))
	command := append([]string{dkeyserverName, "restore"}, paths...)
	if _, err := c.do(ctx, command, "or run in its TEE", "it said why above; run this again, and custodians answer anew"); err != nil {
		return err
	}
	return c.show(dir, v)
}

// verifiedBackup says what is in a backup under the manifests that follow its own.
func verifiedBackup(paths []string, domain string) (*backupView, error) {
	file, err := readRecovery(paths[0])
	if err != nil {
		return nil, err
	}
	b, err := escrow.ParseBackup(file)
	if err != nil {
		return nil, err
	}
	for _, path := range paths[1:] {
		m, err := readRecovery(path)
		if err != nil {
			return nil, err
		}
		if !b.Has(m) {
			b.Manifests = append(b.Manifests, m)
		}
	}
	return viewBackup(b.Encode(), domain)
}

// A restored domain is what restore prints.
type restored struct {
	Domain    string   `json:"domain"`
	Directory string   `json:"directory"`
	Manifest  uint64   `json:"manifest"` // version
	Versions  []uint32 `json:"domainKeyVersions"`
	// Kept is false on a platform without seal keys: custodians come after each start.
	Kept bool `json:"kept"`
}

// show verifies what is in the directory now.
func (c *restoring) show(dir string, b *backupView) error {
	files, err := domainFiles(dir)
	if err != nil {
		return withHint(err, "EHSM_DKEYSERVER_DOMAIN must be the same for both programs")
	}
	s, err := verifyChain(files, b.Domain)
	if err != nil {
		return err
	}
	_, err = os.Stat(filepath.Join(dir, "domainkey.sealed"))
	v := restored{b.Domain, dir, s.Version, b.Versions, err == nil}
	return c.app.emit(v, v.text())
}

func (v *restored) text() string {
	how := "restored with DomainKey " + keyVersions(v.Versions)
	if !v.Kept {
		how = "is there, and custodians give ehsm-dkeyserver its DomainKey, after each start"
	}
	return fmt.Sprintf(`domain %s %s
next:
  serve it, and look:
    ehsm-dkeyserver serve
    ehsm domain status --domain %s
  dkeycaches and workers find it at the address that their settings name
`, v.Domain, how, v.Domain)
}

func newDomainRecovery(a *app) *cobra.Command {
	c := &dkeyserver{app: a}
	cmd := &cobra.Command{
		Use:   "recovery MANIFEST",
		Short: "Have a TEE make the recovery key of other custodians",
		Long: `recovery completes a manifest that names other custodians than the one in force, and
that nobody has signed yet: ehsm-dkeyserver, beside this program or in the PATH, makes a
new recovery key in the TEE of this machine, which has to have the domain's directory
(EHSM_DKEYSERVER_DOMAIN; other settings of ehsm-dkeyserver are in the environment too).
The dkeyserver that serves it goes on meanwhile. The public part is put into MANIFEST,
and a share for each custodian into the directory. Both count once operators have signed
MANIFEST and it is in force.

On a machine without seal keys the custodians of now release their shares to it first, as
for "ehsm domain restore": DIRECTORY.recovery/request.`,
		Example: `  ehsm domain manifest edit manifest-4.json --out manifest-5.json \
    --remove custodians.members=fay --add custodians.members=@gus.key.pub
  ehsm domain recovery manifest-5.json`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, paths []string) error { return c.recovery(cmd.Context(), paths[0]) },
	}
	c.flag(cmd.Flags())
	return cmd
}

func (c *dkeyserver) recovery(ctx context.Context, path string) error {
	if _, err := c.do(ctx, []string{dkeyserverName, "recovery", path}, "or run in its TEE", "it said why above; nothing has changed"); err != nil {
		return err
	}
	b, err := readSmall(path)
	if err != nil {
		return err
	}
	m, err := manifest.Parse(b)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	v := struct {
		Manifest  string   `json:"manifest"`
		Shares    []string `json:"shares"`
		Threshold int      `json:"threshold"` // of custodians
	}{Manifest: path, Threshold: m.Statement.Custodians.Threshold}
	text := fmt.Sprintf("%s has the recovery key of its custodians, of whom it takes %d\nnext:\n  operators sign it, and it is brought in:\n    ehsm domain manifest sign --key KEY --previous PREVIOUS %s\n    ehsm domain submit %s\n  each custodian keeps a copy of the share, and tries it with ehsm domain custodian check:\n", path, v.Threshold, quoteArg(path), quoteArg(path))
	for _, p := range m.Statement.Custodians.Members {
		share := filepath.Join(c.directory(), escrow.ShareFile(p.Name, m.Statement.Version))
		v.Shares = append(v.Shares, share)
		text += "    " + share + "\n"
	}
	return c.app.emit(v, text)
}
