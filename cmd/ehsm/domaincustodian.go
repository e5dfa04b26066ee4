package main

import (
	"context"
	"crypto/hpke"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/guests"
	"github.com/ehsm-kms/ehsm/internal/attest/restoration"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

var errOldManifest = errors.New("the request is under an older manifest")

func newDomainCustodian(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "custodian",
		Short: "Try your share of the recovery key, release it, or approve a re-keying",
		Long: `A custodian holds a share of the recovery key of a domain, sealed to the custodian's
key. Some of the shares together restore the DomainKey; fewer say nothing about it.
docs/domain.md has what custodians do and when.`,
		Example: `  ehsm domain custodian check --key dave.key --share share-dave.sealed --domain 9a31...f0 genesis.json`,
	}, newCustodianCheck(a), newCustodianRelease(a), newCustodianRekey(a))
}

// custodianFlags are what both commands take.
type custodianFlags struct{ key, share, domain string }

func (c *custodianFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.key, "key", "", "your key `file`")
	f.StringVar(&c.share, "share", "", "your sealed share, or a backup that has it: a `file`")
	f.StringVar(&c.domain, "domain", "", "`id` of the domain that you are a custodian of, in hex, from your own notes")
}

func (c *custodianFlags) check() error {
	if c.key == "" || c.share == "" || c.domain == "" {
		return usagef("want --key, --share and --domain")
	}
	return nil
}

func newCustodianCheck(a *app) *cobra.Command {
	var flags custodianFlags
	cmd := &cobra.Command{
		Use:   "check --key FILE --share FILE --domain ID GENESIS [MANIFEST...]",
		Short: "Try whether your share opens and is one of the recovery key",
		Long: `check opens your share with your key, here and for a moment, and compares it with
what the manifest that named you says of it: together with the others it will
give the domain's recovery key. Do it when you get the share, and once a year. Give
all manifests in their order; the last one is that in force.`,
		Example: `  ehsm domain custodian check --key dave.key --share share-dave.sealed --domain 9a31...f0 genesis.json`,
		Args:    args(1, -1),
		RunE: func(_ *cobra.Command, paths []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			s, err := lastOf(paths, flags.domain)
			if err != nil {
				return err
			}
			share, value, err := flags.open(s)
			if err != nil {
				return recoveryHint(err)
			}
			clear(value)
			v := struct {
				Domain    string `json:"domain"`
				Custodian string `json:"custodian"`
				Share     int    `json:"share"`
				Members   int    `json:"members"`
				Threshold int    `json:"threshold"`
			}{s.Domain.String(), share.Custodian, int(share.Index), int(share.Members), int(share.Threshold)}
			return a.emit(v, fmt.Sprintf("the share of %s opens and is one of the recovery key: %d of %d, and %d of them restore the DomainKey\n",
				v.Custodian, v.Share, v.Members, v.Threshold))
		},
	}
	flags.add(cmd)
	return cmd
}

// open opens the share under the manifest of s, and checks it. The caller clears
// value.
func (c *custodianFlags) open(s *manifest.State) (share *escrow.Share, value []byte, err error) {
	k, err := readKeyFile(c.key)
	if err != nil {
		return nil, nil, err
	}
	defer clear(k.secret)
	if k.duty != manifest.Custodian {
		return nil, nil, fmt.Errorf("%s is the key of %s %s, want one of a custodian", c.key, k.duty, k.person.Name)
	}
	if share, err = c.readShare(k.person.Name); err != nil {
		return nil, nil, err
	}
	if err := share.Verify(s); err != nil {
		return nil, nil, err
	}
	key, err := hpke.MLKEM768X25519().NewPrivateKey(k.secret)
	if err != nil {
		return nil, nil, err
	}
	if value, err = escrow.OpenShare(key, share); err != nil {
		return nil, nil, err
	}
	if err := escrow.CheckDigest(share.Index, value, s.Recovery); err != nil {
		clear(value)
		return nil, nil, err
	}
	return share, value, nil
}

// readShare reads the file of a share, or finds it by its owner's name in a backup.
func (c *custodianFlags) readShare(name string) (*escrow.Share, error) {
	b, err := readRecovery(c.share)
	if err != nil {
		return nil, err
	}
	if escrow.IsShare(b) {
		return escrow.ParseShare(b)
	}
	backup, err := escrow.ParseBackup(b)
	if err != nil {
		return nil, fmt.Errorf("%s is neither a share nor a backup: %w", c.share, err)
	}
	for _, f := range backup.Shares {
		s, err := escrow.ParseShare(f)
		if err != nil {
			return nil, err
		}
		if s.Custodian == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%s has no share of %s", c.share, name)
}

func newCustodianRelease(a *app) *cobra.Command {
	var flags custodianFlags
	var out, collateral string
	var least uint64
	cmd := &cobra.Command{
		Use:   "release --key FILE --share FILE --domain ID --out FILE REQUEST",
		Short: "Release your share to a TEE that restores the DomainKey",
		Long: `release judges the request of a dkeyserver that restores, says in words what it has
found, and writes your share, encrypted to the key of that TEE and of this very
restoration: nobody else can open it, and no other restoration takes it.

It refuses unless all of this holds: the request is of the domain that you name; its
manifests are signed; the quote is genuine, and of a dkeyserver, not in debug mode,
on a machine, as the manifest admits them; the TEE has made the key for this; your share
is one of the recovery key of the manifest.

Two things only you can know. Is there a reason to restore? Ask the operators, by
another way than the one by which the request came. And is the manifest the newest one?
An older one may admit a machine that was taken out since: --least-manifest has the
version that operators have told you.`,
		Example: `  ehsm domain custodian release --key dave.key --share share-dave.sealed --domain 9a31...f0 --least-manifest 7 --out dave.answer request`,
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			if out == "" {
				return usagef("no --out, the file for the answer, such as dave.answer")
			}
			b, err := readRecovery(paths[0])
			if err != nil {
				return err
			}
			request, err := escrow.ParseRequest(b)
			if err != nil {
				return fmt.Errorf("%s: %w", paths[0], err)
			}
			v, err := a.judge(cmd.Context(), request, judged{flags.domain, collateral, least})
			if err != nil {
				return releaseHint(err)
			}
			a.tellVerdict(v, request)
			return a.release(&flags, v, request, out)
		},
	}
	flags.add(cmd)
	f := cmd.Flags()
	f.StringVar(&out, "out", "", "`file` for the answer; it goes beside the request, and ends in .answer")
	f.StringVar(&collateral, "collateral", "", "collateral of your own, in place of the request's: a `file` of ehsm attest collateral")
	f.Uint64Var(&least, "least-manifest", 0, "refuse a request under a manifest below this `version`")
	return cmd
}

// judged is what a custodian knows beside the request.
type judged struct {
	domain, collateral string // id in hex, and a file, "" for the request's
	least              uint64 // version of the manifest
}

// judge refuses a request to which no share is released.
func (a *app) judge(ctx context.Context, r *escrow.Request, j judged) (*restoration.Verdict, error) {
	var domain manifest.Hash
	if err := domain.UnmarshalText([]byte(j.domain)); err != nil {
		return nil, usageError{fmt.Errorf("--domain: %w", err)}
	}
	o := restoration.Options{Domain: genesis.ID(domain), Now: time.Now(), Guests: guests.Restoring}
	if j.collateral != "" {
		e, err := attest.DecodeEvidence(r.Evidence)
		if err != nil {
			return nil, err
		}
		if o.Collateral, err = a.readCollateral(ctx, j.collateral, e.Quote); err != nil {
			return nil, err
		}
	}
	v, err := restoration.Judge(r, o)
	if err != nil {
		return nil, err
	}
	if v.State().Version < j.least {
		return nil, fmt.Errorf("%w: %d, want %d or newer", errOldManifest, v.State().Version, j.least)
	}
	return v, nil
}

// tellVerdict says in words what was checked.
func (a *app) tellVerdict(v *restoration.Verdict, r *escrow.Request) {
	s := v.State()
	a.warn("domain %s: the one that you name", s.Domain)
	a.warn("manifest %d of %s, signed by its operators; ask them whether it is the newest", s.Version, s.Date.Format(time.RFC3339))
	a.warn("program: dkeyserver, %s, as the manifest admits it", v.Program)
	machine := v.Machine
	if machine == "" {
		machine = "any; the manifest lists none"
	}
	a.warn("machine: %s, %s", machine, v.Number)
	if v.Simulated {
		a.warn("WARNING: the machine is simulated: whoever runs it gets the DomainKey")
	}
	a.warn("key: made in that program for this restoration, of the backup with SHA-256 %x", r.Backup)
}

func (a *app) release(c *custodianFlags, v *restoration.Verdict, r *escrow.Request, out string) error {
	share, value, err := c.open(v.State())
	if err != nil {
		return recoveryHint(err)
	}
	defer clear(value)
	answer, err := escrow.Release(share, value, r)
	if err != nil {
		return err
	}
	if err := a.writeBytes(out, answer.Encode()); err != nil {
		return err
	}
	view := struct {
		Domain    string `json:"domain"`
		Manifest  uint64 `json:"manifest"`
		Machine   string `json:"machine,omitempty"`
		Simulated bool   `json:"simulated"`
		Backup    string `json:"backup"`
		Custodian string `json:"custodian"`
		Threshold int    `json:"threshold"`
	}{v.State().Domain.String(), v.State().Version, v.Machine, v.Simulated, fmt.Sprintf("%x", r.Backup), share.Custodian, int(share.Threshold)}
	return a.emit(view, fmt.Sprintf("released the share of %s to that program alone; it takes %d\n", view.Custodian, view.Threshold))
}

// releaseHint says what a refused request means.
func releaseHint(err error) error {
	for _, h := range []struct {
		is   error
		hint string
	}{
		{restoration.ErrDomain, "nothing was released; the request is not for your share, or somebody tries to get it"},
		{snp.ErrChip, "nothing was released; operators admit the chip with a new manifest, with which the restoration starts again"},
		{validate.ErrPlatform, "nothing was released; operators admit the machine with a new manifest, with which the restoration starts again"},
		{snp.ErrReportData, "nothing was released; the request was changed on its way, or put together by somebody"},
		{validate.ErrReportData, "nothing was released; the request was changed on its way, or put together by somebody"},
		{errOldManifest, "nothing was released; the restoration starts again with all manifests"},
		{escrow.ErrSimulation, "nothing was released; keys of a protected domain are not restored where the host gets them"},
	} {
		if errors.Is(err, h.is) {
			return withHint(err, h.hint)
		}
	}
	return manifestHint(err)
}
