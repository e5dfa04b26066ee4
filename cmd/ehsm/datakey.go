package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
)

type dataKeyFlags struct {
	keyID       string
	length      int
	aad         string
	plaintext   string // file
	noPlaintext bool
}

func newDataKey(a *app) *cobra.Command {
	var f dataKeyFlags
	cmd := &cobra.Command{
		Use:   "datakey --key KEY (--no-plaintext | --plaintext FILE)",
		Short: "Make a data key, encrypted under a key of the service",
		Long: `datakey prints a new random key, encrypted, as base64. ehsm decrypt opens it.

The plaintext goes, as bytes, to the file of --plaintext, which only you may read.
With --plaintext - it is printed as base64 too, on a line of its own before the
ciphertext. With --no-plaintext it never leaves the core.`,
		Example: `  ehsm datakey --key $KEY --plaintext disk.key > disk.key.enc
  ehsm datakey --key $KEY --len 16 --no-plaintext`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case f.keyID == "":
				return withHint(usagef("no --key"), "ehsm key create makes one, ehsm key list shows yours")
			case f.noPlaintext == (f.plaintext != ""):
				return withHint(usagef("want one of --plaintext and --no-plaintext"), "--plaintext FILE keeps the key for use now; --no-plaintext makes one for later")
			case f.length < 1 || f.length > api.MaxDataKey:
				return usagef("length is %d, want 1 to %d", f.length, api.MaxDataKey)
			}
			return a.dataKey(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.keyID, "key", "", "`id` of the key to encrypt under")
	flags.IntVar(&f.length, "len", 32, "length in `bytes`")
	flags.StringVar(&f.aad, "aad", "", "additional data: `text` that must be the same again to decrypt")
	flags.StringVar(&f.plaintext, "plaintext", "", "`file` for the plaintext, - for standard output")
	flags.BoolVar(&f.noPlaintext, "no-plaintext", false, "the plaintext is not wanted")
	return cmd
}

func (a *app) dataKey(ctx context.Context, f dataKeyFlags) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if f.noPlaintext {
		ct, err := client.GenerateDataKeyWithoutPlaintext(ctx, f.keyID, f.length, []byte(f.aad))
		if err != nil {
			return withKey(err, f.keyID)
		}
		return a.emitDataKey(nil, ct)
	}
	plain, ct, err := client.GenerateDataKey(ctx, f.keyID, f.length, []byte(f.aad))
	if err != nil {
		return withKey(err, f.keyID)
	}
	defer clear(plain)
	if f.plaintext == stdio {
		return a.emitDataKey(plain, ct)
	}
	if err := a.writeSecret(f.plaintext, plain); err != nil {
		return err
	}
	return a.emitDataKey(nil, ct)
}

// writeSecret writes a file that only the user may read, also if it exists with
// another mode.
func (a *app) writeSecret(path string, b []byte) error {
	return a.write(path, func(w io.Writer) error {
		if f, ok := w.(*outFile); ok && f.path != "" {
			if err := f.Chmod(0o600); err != nil {
				return err
			}
		}
		_, err := w.Write(b)
		return err
	})
}

func (a *app) emitDataKey(plain, ct []byte) error {
	encode := base64.StdEncoding.EncodeToString
	text := encode(ct) + "\n"
	if plain != nil {
		text = fmt.Sprintf("plaintext  %s\nciphertext %s\n", encode(plain), encode(ct))
	}
	return a.emit(api.DataKeyResult{Plaintext: plain, Ciphertext: ct}, text)
}
