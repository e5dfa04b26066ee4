package main

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// credentialFlags say what a new credential is, and where its API key goes.
type credentialFlags struct {
	as, public, role string
	show             bool
	expires          time.Duration
	o                ehsm.CredentialOptions
}

func newCredentialCreate(a *app) *cobra.Command {
	var f credentialFlags
	cmd := &cobra.Command{
		Use:   "create (--as NAME | --show | --public FILE)",
		Short: "Make an API key, or register a public key",
		Long: `create makes a credential of your tenant and prints its id. It takes an owner.

  --as NAME       an API key, which goes into a new profile for this service
  --show          an API key, which is printed, this once
  --public FILE   a key pair: the service gets its public half, Ed25519 or P-256

The host of the service reads a new API key on its way, unless requests are sealed
(ehsm attest verify --pin). Of a key pair nobody but its holder has a secret.`,
		Example: `  ehsm credential create --as batch --description "batch jobs" --expires 2160h
  ehsm --profile batch key list

  openssl genpkey -algorithm ed25519 -out batch.key
  openssl pkey -in batch.key -pubout -out batch.pub
  ehsm credential create --public batch.pub`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.createCredential(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.as, "as", "", "write the API key to a new profile of this `name`")
	flags.BoolVar(&f.show, "show", false, "print the API key; it is a secret, and is not kept")
	flags.StringVar(&f.public, "public", "", "PEM `file` with the public half of a key pair, - for standard input")
	flags.StringVar(&f.role, "role", api.RoleUser, "`role`: user, or owner, which decides about credentials")
	flags.StringVar(&f.o.Description, "description", "", "`text` that list shows, up to 64 characters of ASCII")
	flags.StringVar(&f.o.Policy, "policy", "", "`ID` of the policy that it is under, see ehsm policy")
	flags.DurationVar(&f.expires, "expires", 0, "`time` after which it ends, such as 720h; else never")
	flags.BoolVar(&f.o.RequireAction, "require-action", false, "refuse its requests unless they name their action under the signature, as those of ehsm do")
	return cmd
}

// check returns the error of a wrong command line, if it is one.
func (f credentialFlags) check() error {
	ways := 0
	for _, given := range []bool{f.as != "", f.show, f.public != ""} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return withHint(usagef("got %d of --as, --show and --public, want one", ways), "--as NAME keeps a new API key in a profile; ehsm credential create --help")
	case f.role != api.RoleOwner && f.role != api.RoleUser:
		return usagef("role is %q, want %s or %s", f.role, api.RoleOwner, api.RoleUser)
	case f.expires < 0:
		return usagef("expires is %v, want a time to come, such as 720h", f.expires)
	case f.o.Policy != "" && f.role != api.RoleUser:
		return usagef("an owner is under no policy: --policy is for the role user")
	}
	return checkDescription(f.o.Description)
}

// checkDescription returns the error of a description that the service does not take.
func checkDescription(text string) error {
	if len(text) > api.MaxDescription {
		return usagef("description has %d characters, limit %d", len(text), api.MaxDescription)
	}
	for _, r := range text {
		if r < ' ' || r > '~' {
			return usagef("description has %q, want printable ASCII", r)
		}
	}
	return nil
}

func (a *app) createCredential(ctx context.Context, f credentialFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	f.o.Owner = f.role == api.RoleOwner
	if f.expires > 0 {
		f.o.Expires = time.Now().Add(f.expires)
	}
	if f.public != "" {
		var err error
		if f.o.PublicKey, err = a.readCredentialKey(ctx, f.public); err != nil {
			return err
		}
	}
	if f.as != "" {
		return a.createProfile(ctx, f)
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	id, key, err := client.CreateCredential(ctx, f.o)
	if err != nil {
		return asOwner(err)
	}
	if f.public != "" {
		return a.emit(map[string]string{"credentialId": id, "appid": client.AppID()}, id+"\n")
	}
	return a.emit(map[string]string{"credentialId": id, "appid": client.AppID(), "apikey": key.Expose()},
		fmt.Sprintf("id:     %s\nappid:  %s\napikey: %s\n", id, client.AppID(), key.Expose()))
}

// createProfile makes an API key and keeps it in a new profile. One that cannot be
// kept is revoked again.
func (a *app) createProfile(ctx context.Context, f credentialFlags) error {
	path, p, err := a.newProfile(f.as)
	if err != nil {
		return err
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	id, key, err := client.CreateCredential(ctx, f.o)
	if err != nil {
		return asOwner(err)
	}
	p.APIKey = storedAKey{key}
	if err := saveProfile(path, f.as, p); err != nil {
		if revokeErr := client.RevokeCredential(ctx, id); revokeErr != nil {
			return withHint(fmt.Errorf("keep credential %s: %w; revoke it: %v", id, err, revokeErr), "ehsm credential revoke "+id)
		}
		return fmt.Errorf("keep credential %s, which is revoked again: %w", id, err)
	}
	a.warn("wrote profile %q to %s", f.as, path)
	return a.emit(map[string]string{"credentialId": id, "appid": p.AppID, "profile": f.as}, id+"\n")
}

// newProfile returns a profile for the service of the settings that lacks its API
// key only, and the file that it can be written to.
func (a *app) newProfile(name string) (path string, p profile, err error) {
	if path, err = a.configPath(); err != nil {
		return "", p, err
	}
	c, err := loadConfig(path)
	if err != nil {
		return "", p, err
	}
	if _, exists := c.Profiles[name]; exists {
		return "", p, withHint(usagef("profile %q in %s exists", name, path), "choose another name with --as")
	}
	cfg, err := a.settings()
	if err != nil {
		return "", p, err
	}
	p = profile{URL: cfg.URL, CAFile: cfg.CAFile, Fingerprint: cfg.Fingerprint, Insecure: cfg.Insecure, AppID: cfg.AppID}
	from, err := a.selected()
	if err != nil {
		return "", p, err
	}
	if sameService(cfg.URL, from.URL) {
		p.Pins = from.Pins
	}
	return path, p, probe(path)
}

// readCredentialKey reads the public half of a key pair.
func (a *app) readCredentialKey(ctx context.Context, path string) (crypto.PublicKey, error) {
	in, _, err := a.open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	const maxPEM = 1 << 14 // bytes
	b, more, err := readHead(in, maxPEM)
	if err != nil {
		return nil, err
	}
	key, err := parseCredentialKey(b)
	if more {
		err = fmt.Errorf("more than %d bytes", maxPEM)
	}
	if err != nil {
		return nil, withHint(fmt.Errorf("read public key of %s: %w", path, err), "openssl pkey -in KEY -pubout -out FILE writes what is wanted, of an Ed25519 or P-256 key")
	}
	return key, nil
}

// parseCredentialKey decodes a PEM block "PUBLIC KEY" of an Ed25519 or P-256 key.
func parseCredentialKey(b []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PUBLIC KEY" {
		got := "none"
		if block != nil {
			got = cmp.Or(block.Type, "one without a type")
		}
		return nil, fmt.Errorf("PEM block is %q, want PUBLIC KEY", got)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	switch k := key.(type) {
	case ed25519.PublicKey:
		return k, nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return k, nil
		}
		return nil, fmt.Errorf("key is on %s, want Ed25519 or P-256", k.Curve.Params().Name)
	}
	return nil, fmt.Errorf("key is %T, want Ed25519 or P-256", key)
}
