package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/client/ehsm/attested"
)

// A loginSource is what a workload proves itself with, each time that it calls.
type loginSource struct {
	JWTFile  string `yaml:"jwt_file,omitempty"`  // that an orchestrator keeps in force
	QuoteDir string `yaml:"quote_dir,omitempty"` // Gramine's attestation files
}

// loginFlags are those of ehsm login.
type loginFlags struct {
	Pins
	loginSource
	appid   string
	replace bool
}

func newLogin(a *app) *cobra.Command {
	var f loginFlags
	cmd := &cobra.Command{
		Use:   "login --appid ID (--jwt-file FILE | --quote)",
		Short: "Log in as a workload, by a token or by what runs",
		Long: `login verifies the service, proves to it what this workload is, and writes a profile
by which each command does the same again: no secret is kept, and the credentials
that the service gives end by themselves. A rule of the tenant must accept the proof
("ehsm login rule").

  --jwt-file FILE   a token of an issuer, which is read anew each time: a projected
                    service account token of Kubernetes, or one of OIDC or SPIFFE
  --quote           a quote of the enclave that this program runs in, by Gramine's
                    files in /dev/attestation, or in --quote-dir`,
		Example: `  ehsm login --url https://kms.example:9000 --appid 86f0...4b5c --jwt-file /var/run/secrets/tokens/ehsm \
    --domain 9a31...f0 --policy policy.json
  ehsm key list`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.login(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.appid, "appid", "", "`id` of the tenant")
	flags.StringVar(&f.JWTFile, "jwt-file", "", "`file` with the token")
	quote := flags.Bool("quote", false, "prove it by a quote of this enclave")
	flags.StringVar(&f.QuoteDir, "quote-dir", "", "`directory` of the attestation files, with --quote")
	flags.BoolVar(&f.replace, "replace", false, "overwrite a profile that has credentials; they are lost")
	f.register(flags, "")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if !*quote && f.QuoteDir != "" {
			return usagef("--quote-dir goes with --quote")
		}
		if *quote {
			f.QuoteDir = cmp.Or(f.QuoteDir, "/dev/attestation")
		}
		return nil
	}
	cmd.AddCommand(newLoginRule(a))
	return cmd
}

// check returns the error of a wrong command line, and otherwise what a profile keeps.
func (f *loginFlags) check() (err error) {
	switch {
	case f.appid == "":
		return withHint(usagef("no --appid"), "the owner of the tenant knows it")
	case (f.JWTFile == "") == (f.QuoteDir == ""):
		return usagef("want one of --jwt-file and --quote")
	case f.JWTFile == stdio:
		return usagef("--jwt-file has to be a file, as it is read again")
	}
	if f.Pins, err = f.kept(); err != nil {
		return err
	}
	for _, path := range []*string{&f.JWTFile, &f.QuoteDir} {
		if *path != "" {
			if *path, err = filepath.Abs(*path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *app) login(ctx context.Context, f loginFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	name := cmp.Or(a.profile, defaultProfile)
	path, err := a.configPath()
	if err != nil {
		return err
	}
	c, err := loadConfig(path)
	if err != nil {
		return err
	}
	old, exists := c.Profiles[name]
	if exists && !old.APIKey.IsZero() && !f.replace {
		return withHint(usagef("profile %q in %s has credentials", name, path), "choose another name with --profile, or --replace to lose them")
	}
	if !exists {
		a.profile = "" // settings must not look for it
	}
	cfg, err := a.settings()
	if err != nil {
		return err
	}
	p := profile{
		URL: cfg.URL, CAFile: cfg.CAFile, Fingerprint: cfg.Fingerprint, Insecure: cfg.Insecure, Pins: f.Pins, AppID: f.appid, Login: &f.loginSource,
	}
	plain, err := a.plainClient()
	if err != nil {
		return err
	}
	defer plain.Close()
	_, report, err := a.logIn(ctx, plain, p)
	if err != nil {
		return explainCertificate(ctx, cfg.URL, err)
	}
	a.warn("verified before the proof was sent:\n%s", report)
	if err := saveProfile(path, name, p); err != nil {
		return err
	}
	a.warn("wrote profile %q to %s", name, path)
	return a.emit(map[string]string{"profile": name, "url": p.URL, "appid": p.AppID}, p.AppID+"\n")
}

// logIn logs in as a profile says. The client seals its requests and renews itself.
func (a *app) logIn(ctx context.Context, plain *ehsm.Client, p profile) (*ehsm.Client, *attested.Report, error) {
	if !p.complete() {
		return nil, nil, withHint(usagef("the profile does not say how to know the service"), "ehsm login writes one that does")
	}
	v, err := a.verifierOf(ctx, p.Pins)
	if err != nil {
		return nil, nil, err
	}
	w := attested.Workload{AppID: p.AppID}
	if p.Login.JWTFile != "" {
		w.JWT = attested.JWTFile(p.Login.JWTFile)
	} else {
		w.Quote = gramineQuote(p.Login.QuoteDir)
	}
	c, report, err := v.Login(ctx, plain, w)
	var refused *api.Error
	if errors.As(err, &refused) && refused.Message == api.MessageLogin {
		err = withHint(err, "the owner looks for the reason in the audit trail, and at the rules: ehsm login rule list")
	}
	return c, report, err
}

// gramineQuote asks Gramine for quotes by its files (Gramine's documentation,
// "Attestation and Secret Provisioning"): report data is written to one, and the quote
// is read from another.
func gramineQuote(dir string) func(context.Context, [64]byte) ([]byte, error) {
	return func(_ context.Context, reportData [64]byte) ([]byte, error) {
		to, err := os.OpenFile(filepath.Join(dir, "user_report_data"), os.O_WRONLY, 0)
		if err != nil {
			return nil, withHint(err, "a quote is of the enclave that this program runs in, under Gramine with remote attestation")
		}
		_, err = to.Write(reportData[:])
		if err := errors.Join(err, to.Close()); err != nil {
			return nil, err
		}
		from, err := os.Open(filepath.Join(dir, "quote"))
		if err != nil {
			return nil, err
		}
		defer from.Close()
		b, err := io.ReadAll(io.LimitReader(from, api.MaxLoginQuote+1))
		if err == nil && (len(b) == 0 || len(b) > api.MaxLoginQuote) {
			err = fmt.Errorf("quote of %d bytes, want 1 to %d", len(b), api.MaxLoginQuote)
		}
		return b, err
	}
}
