package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
)

func newPubKey(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "pubkey KEY",
		Short: "Print the public half of a key",
		Long: `pubkey prints the public key of an RSA, EC or SM2 key as PEM: RSA as PKCS#1
("RSA PUBLIC KEY"), the others as SubjectPublicKeyInfo ("PUBLIC KEY"). The core
vouches for it.`,
		Example: `  ehsm pubkey $KEY
  ehsm pubkey $KEY -o key.pem`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.pubKey(cmd.Context(), args[0], out) },
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "write to a `file`, complete or not at all, instead of standard output")
	return cmd
}

func (a *app) pubKey(ctx context.Context, keyID, out string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	key, err := client.PublicKey(ctx, keyID)
	if err != nil {
		return withKey(err, keyID)
	}
	if out == "" || out == stdio {
		return a.emit(struct {
			KeyID  string      `json:"keyid"`
			Spec   api.KeySpec `json:"keyspec"`
			PubKey string      `json:"pubkey"`
		}{keyID, key.Spec, key.PEM}, key.PEM)
	}
	if err := a.write(out, func(w io.Writer) error { _, err := io.WriteString(w, key.PEM); return err }); err != nil {
		return err
	}
	return a.emitFile(out, int64(len(key.PEM)))
}
