package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

type exportFlags struct {
	keyID, aad      string
	toKey, toPubKey string // file
	padding         string
	in, out         string
	binary          bool
}

func newExportDataKey(a *app) *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export-datakey (--to-key KEY | --to-pubkey FILE) [FILE]",
		Short: "Encrypt a data key to somebody's public key",
		Long: `export-datakey takes an encrypted data key, as ehsm datakey printed it or as
bytes, from a file or standard input. The core opens it and encrypts it to an RSA
or SM2 key of yours, or to a public key in a PEM file: RSA of at least 2048 bits,
with OAEP and SHA-256, or SM2. Its plaintext does not leave the core.`,
		Example: `  ehsm datakey --key $KEY --no-plaintext > dk.enc
  ehsm export-datakey --to-pubkey receiver.pem dk.enc
  ehsm export-datakey --to-key $RSA --binary dk.enc -o dk.rsa`,
		Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.in = strings.Join(args, "")
			return a.exportDataKey(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.keyID, "key", "", "`id` of the key that encrypts the data key; the one it names without it")
	flags.StringVar(&f.aad, "aad", "", "additional data: `text` that the data key was made with")
	flags.StringVar(&f.toKey, "to-key", "", "`id` of an RSA or SM2 key of yours that encrypts")
	flags.StringVar(&f.toPubKey, "to-pubkey", "", "`file` with a public key as PEM")
	flags.StringVar(&f.padding, "padding", "oaep", "`oaep or pkcs1`, for RSA keys")
	addOut(cmd, &f.out, &f.binary)
	return cmd
}

func (a *app) exportDataKey(ctx context.Context, f exportFlags) error {
	to, err := exportTarget(f)
	if err != nil {
		return err
	}
	wrapped, err := a.readText(ctx, f.in, api.MaxWrapped)
	if err != nil {
		return err
	}
	if f.keyID == "" {
		var ok bool
		if f.keyID, ok = ehsm.CiphertextKeyID(wrapped); !ok {
			return errors.New("input is no data key that names its key")
		}
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	exported, err := client.ExportDataKey(ctx, f.keyID, wrapped, []byte(f.aad), to)
	if err != nil {
		return err
	}
	return a.finishBytes(f.out, f.binary, "newdatakey", exported)
}

func exportTarget(f exportFlags) (to ehsm.ExportTarget, err error) {
	if (f.toKey == "") == (f.toPubKey == "") {
		return to, usagef("want one of --to-key and --to-pubkey")
	}
	if to.Padding, err = parsePadding(f.padding, "oaep", "pkcs1"); err != nil {
		return to, err
	}
	to.KeyID = f.toKey
	if f.toPubKey != "" {
		text, err := os.ReadFile(f.toPubKey)
		if err != nil {
			return to, fmt.Errorf("read public key: %w", err)
		}
		if len(text) > api.MaxPublicKey {
			return to, fmt.Errorf("public key %s has more than %d bytes", f.toPubKey, api.MaxPublicKey)
		}
		to.PublicKey = string(text)
	}
	return to, nil
}
