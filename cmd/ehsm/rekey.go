package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

const (
	rekeyFormat   = "ehsm-rekey/v1"
	rekeyApproval = "ehsm-rekey-approval-v1"
	maxRekey      = 1 << 18 // bytes of either file
)

// A rekeyFile is what custodians are asked, as it goes from the administrator to them
// and comes back beside their approvals.
type rekeyFile struct {
	Format    string `json:"format"`
	Domain    string `json:"domain"`
	AppID     string `json:"appid"`
	Kind      string `json:"kind"`
	PublicKey []byte `json:"publicKey"`
	api.PrepareRekeyResult
}

// statement is what approvals bind.
func (r *rekeyFile) statement() ([]byte, error) {
	s := api.Rekey{Revision: r.Revision, Expires: r.Expires, DomainKey: r.DomainKey, Kind: r.Kind, PublicKey: r.PublicKey}
	domain, err := hex.DecodeString(r.Domain)
	app, appErr := hex.DecodeString(strings.ReplaceAll(r.AppID, "-", ""))
	if err != nil || appErr != nil || len(domain) != len(s.Domain) || len(app) != len(s.AppID) || len(r.Kind) > 16 {
		return nil, errors.New("domain or appid is none")
	}
	s.Domain, s.AppID = [32]byte(domain), [16]byte(app)
	return s.Statement(), nil
}

// words is what a custodian approves.
func (r *rekeyFile) words() string {
	return fmt.Sprintf("let app %s have one owner, the %s key %s, in place of all its credentials, until %s",
		r.AppID, r.Kind, base64.StdEncoding.EncodeToString(r.PublicKey), time.UnixMilli(r.Expires).UTC().Format(time.RFC3339))
}

func (a *app) readRekey(ctx context.Context, path string) (*rekeyFile, error) {
	b, err := a.readLimited(ctx, path, maxRekey)
	if err != nil {
		return nil, err
	}
	r := new(rekeyFile)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil || r.Format != rekeyFormat || d.Decode(new(any)) != io.EOF {
		return nil, fmt.Errorf("read %s: it is no request of ehsm admin apps rekey prepare", path)
	}
	return r, nil
}

func newAdminRekey(a *app, f *adminFlags) *cobra.Command {
	return group(&cobra.Command{
		Use: "rekey", Short: "Have custodians give an app another owner",
		Long: `A tenant who has lost all credentials makes a key pair and brings its public half.
prepare writes what the custodians of the domain are asked. As many as the manifest
says approve, each with "ehsm domain custodian rekey", and finish brings what they
have printed. The app then has that key pair for its one owner, and no other
credential. Convince yourselves who asks: this is the way past all credentials.`,
		Example: adminExample("apps rekey prepare 86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c --public alice.pub --out rekey.json"),
	}, newRekeyPrepare(a, f), newRekeyFinish(a, f))
}

func newRekeyPrepare(a *app, f *adminFlags) *cobra.Command {
	var public, out string
	var expires time.Duration
	cmd := &cobra.Command{
		Use: "prepare APPID", Short: "Write what the custodians are asked", Args: args(1, 1),
		Example: adminExample("apps rekey prepare 86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c --public alice.pub --out rekey.json"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if public == "" || out == "" {
				return usagef("want --public and --out")
			}
			return a.prepareRekey(cmd.Context(), f, args[0], public, out, expires)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&public, "public", "", "`file` with the new owner's public key, PEM, Ed25519 or P-256")
	flags.StringVar(&out, "out", "", "`file` to write, for the custodians")
	flags.DurationVar(&expires, "expires", 72*time.Hour, "`time` that the custodians have")
	return cmd
}

func (a *app) prepareRekey(ctx context.Context, f *adminFlags, appid, public, out string, expires time.Duration) error {
	key, err := a.readCredentialKey(ctx, public)
	if err != nil {
		return err
	}
	known, err := a.knownBy(f.Pins)
	if err != nil {
		return err
	}
	r := rekeyFile{Format: rekeyFormat, Domain: known.Domain, AppID: appid}
	if r.Kind, r.PublicKey, err = rawPublicKey(key); err != nil {
		return err
	}
	q := api.PrepareRekeyRequest{AppID: appid, Kind: r.Kind, PublicKey: r.PublicKey, Seconds: int(expires / time.Second)}
	if err := a.asAdmin(ctx, f, api.PrepareRekey, q, &r.PrepareRekeyResult); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := a.write(out, func(w io.Writer) error { _, err := w.Write(append(b, '\n')); return err }); err != nil {
		return err
	}
	a.warn("wrote %s: %d of %d custodians have to approve, with ehsm domain custodian rekey", out, r.Threshold, len(r.List))
	return nil
}

// rawPublicKey is a public key as credentials have it.
func rawPublicKey(key crypto.PublicKey) (kind string, raw []byte, err error) {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return "ed25519", k, nil
	case *ecdsa.PublicKey:
		raw, err := k.Bytes()
		return "p256", raw, err
	}
	return "", nil, fmt.Errorf("public key is a %T, want Ed25519 or P-256", key)
}

func newRekeyFinish(a *app, f *adminFlags) *cobra.Command {
	return &cobra.Command{
		Use: "finish FILE APPROVAL...", Short: "Bring what the custodians have printed", Args: args(2, -1),
		Example: adminExample("apps rekey finish rekey.json dave.txt erin.txt"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.readRekey(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			q := api.RekeyAppRequest{
				AppID: r.AppID, Kind: r.Kind, PublicKey: r.PublicKey, Revision: r.Revision, Expires: r.Expires, DomainKey: r.DomainKey,
			}
			for _, path := range args[1:] {
				approval, err := a.readApproval(cmd.Context(), path)
				if err != nil {
					return err
				}
				q.Approvals = append(q.Approvals, approval)
			}
			var result api.RekeyAppResult
			if err := a.asAdmin(cmd.Context(), f, api.RekeyApp, q, &result); err != nil {
				return err
			}
			return a.emit(result, result.CredentialID+"\n")
		},
	}
}

func (a *app) readApproval(ctx context.Context, path string) ([]byte, error) {
	b, err := a.readLimited(ctx, path, maxRekey)
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(b))
	if len(fields) == 3 && fields[0] == rekeyApproval {
		if approval, err := base64.StdEncoding.DecodeString(fields[2]); err == nil && len(approval) == api.RekeyApprovalSize {
			return approval, nil
		}
	}
	return nil, fmt.Errorf("read %s: it is no approval of a custodian", path)
}

func newCustodianRekey(a *app) *cobra.Command {
	var key, domain string
	var yes bool
	cmd := &cobra.Command{
		Use: "rekey FILE --key FILE --domain ID", Short: "Approve that an app gets another owner", Args: args(1, 1),
		Long: `rekey says what is asked and, if you agree, prints your approval, for the
administrator who asks. It is good for this app, this key and this date only. Hear
from the tenant in person, and compare the key: together you go past all
credentials of the app.`,
		Example: `  ehsm domain custodian rekey rekey.json --key dave.key --domain 9a31...f0 > dave.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if key == "" || domain == "" {
				return usagef("want --key and --domain")
			}
			return a.approveRekey(cmd.Context(), args[0], key, strings.ToLower(domain), yes)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&key, "key", "", "your key `file`")
	flags.StringVar(&domain, "domain", "", "`id` of the domain that you are a custodian of, in hex, from your own notes")
	flags.BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (a *app) approveRekey(ctx context.Context, path, key, domain string, yes bool) error {
	k, err := readKeyFile(key)
	if err != nil {
		return err
	}
	defer clear(k.secret)
	if k.duty != manifest.Custodian {
		return usagef("%s is a key for the duty of %s, want one of %s", key, k.duty, manifest.Custodian)
	}
	r, err := a.readRekey(ctx, path)
	if err != nil {
		return err
	}
	switch {
	case r.Domain != domain:
		return fmt.Errorf("the request is for domain %s", r.Domain)
	case time.Now().UnixMilli() >= r.Expires:
		return errors.New("the request has expired")
	}
	approval, err := r.open(k)
	if err != nil {
		return err
	}
	defer clear(approval)
	if !yes {
		if err := a.confirm(ctx, r.words()); err != nil {
			return err
		}
	}
	a.warn("approved: %s", r.words())
	line := fmt.Sprintf("%s %s %s\n", rekeyApproval, k.person.Name, base64.StdEncoding.EncodeToString(approval))
	return a.emit(map[string]string{"custodian": k.person.Name, "approval": base64.StdEncoding.EncodeToString(approval)}, line)
}

// open decrypts the approval of a custodian. It fails where the request says something
// else than what the core has made it for.
func (r *rekeyFile) open(k *keyFile) ([]byte, error) {
	statement, err := r.statement()
	if err != nil {
		return nil, err
	}
	own, err := hpke.MLKEM768X25519().NewPrivateKey(k.secret)
	if err != nil {
		return nil, err
	}
	for _, c := range r.List {
		if c.Custodian != k.person.Name {
			continue
		}
		o, err := hpke.NewRecipient(c.Enc, own, hpke.HKDFSHA256(), hpke.AES256GCM(), statement)
		if err == nil {
			var approval []byte
			if approval, err = o.Open(nil, c.Ciphertext); err == nil && len(approval) == api.RekeyApprovalSize {
				return approval, nil
			}
		}
		return nil, errors.New("your approval does not open: it is for another key than yours, or for something else than the request says")
	}
	return nil, fmt.Errorf("%s is not among the custodians who are asked", k.person.Name)
}
