package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/client/ehsm"
)

func newEnroll(a *app) *cobra.Command {
	var replace bool
	var f attestedFlags
	cmd := &cobra.Command{
		Use:   "enroll",
		Short: "Register as a new tenant and keep the credentials in a profile",
		Long: `enroll makes a new tenant at a service that allows it and writes address,
certificate fingerprint and credentials to a profile: --profile, or "default".

The certificate must be vouched for by the system's roots, by --ca-file, or be
the one of --fingerprint. If it is not, enroll prints its fingerprint, for you to
compare with what the service printed at its start.

With --token the service is verified first: it must be of the --domain, and run
what --policy or --measurement accepts. Its host then sees neither token nor API
key, and nothing of later requests with the profile but their names and sizes.
Without, whoever runs the host of the service has seen the API key.`,
		Example: `  ehsm enroll --url https://kms.example:9000 --token shop.token --domain 9a31...f0 --policy policy.json
  ehsm enroll --url https://kms.example:9000 --token - --domain 9a31...f0 --measurement 39213a...7d < shop.token
  ehsm enroll --url https://kms.example:9000
  ehsm enroll --url https://10.0.0.5:9000 --fingerprint 3f5a...c1 --profile test`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.enroll(cmd.Context(), replace, f) },
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "overwrite a profile that has credentials; they are lost, and with them the way to its keys")
	flags := cmd.Flags()
	flags.StringVar(&f.token, "token", "", "`file` with an enrollment token, - for standard input: the service is verified first, and its host sees neither token nor API key")
	flags.StringVar(&f.label, "label", "", "`text` that describes the credential, with --token")
	f.register(flags, ", with --token")
	return cmd
}

func (a *app) enroll(ctx context.Context, replace bool, f attestedFlags) error {
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
	if exists && old.AppID != "" && !replace {
		return withHint(usagef("profile %q in %s has credentials already", name, path), "choose another name with --profile, or --replace to lose them")
	}
	if !exists {
		a.profile = "" // settings must not look for it
	}
	if f.token != "" {
		if f.Pins, err = f.kept(); err != nil {
			return err
		}
	} else if f.Pins != (Pins{}) || f.label != "" {
		return usagef("--domain, --policy, --measurement, --collateral, --allow-sim and --label go with --token")
	}
	p, err := a.register(ctx, f)
	if err != nil {
		return err
	}
	if err := saveProfile(path, name, p); err != nil {
		return err
	}
	a.warn("wrote profile %q to %s", name, path)
	if p.complete() {
		a.sealsTo(name, p.Pins)
	}
	return a.emit(struct {
		Profile string `json:"profile"`
		URL     string `json:"url"`
		AppID   string `json:"appid"`
	}{name, p.URL, p.AppID}, p.AppID+"\n")
}

// register enrolls at the service of the settings and returns its profile.
func (a *app) register(ctx context.Context, f attestedFlags) (profile, error) {
	cfg, err := a.settings()
	if err != nil {
		return profile{}, err
	}
	client, err := a.plainClient()
	if err != nil {
		return profile{}, err
	}
	defer client.Close()
	var cred ehsm.Credentials
	if f.token != "" {
		cred, err = a.enrollAttested(ctx, client, f)
	} else {
		cred, err = client.Enroll(ctx)
	}
	if err != nil {
		return profile{}, explainCertificate(ctx, cfg.URL, err)
	}
	p := profile{
		URL: cfg.URL, CAFile: cfg.CAFile, Fingerprint: cfg.Fingerprint, Insecure: cfg.Insecure,
		Pins: f.Pins, AppID: cred.AppID, APIKey: storedAKey{cred.APIKey},
	}
	if cfg.Insecure && strings.HasPrefix(strings.ToLower(cfg.URL), "https:") && cfg.Fingerprint == "" {
		// From here on the server need not be trusted blindly.
		if p.Fingerprint, err = ehsm.UnverifiedFingerprint(ctx, cfg.URL); err != nil {
			return profile{}, err
		}
		p.Insecure = false
	}
	return p, nil
}

// explainCertificate adds the fingerprint to the error of a certificate that
// nobody vouches for.
func explainCertificate(ctx context.Context, url string, err error) error {
	var certificate *tls.CertificateVerificationError
	if !errors.As(err, &certificate) {
		return err
	}
	sum, lookErr := ehsm.UnverifiedFingerprint(ctx, url)
	if lookErr != nil {
		return err
	}
	return withHint(err, fmt.Sprintf("if the operator says that this is the server's fingerprint, add --fingerprint %s", sum))
}
