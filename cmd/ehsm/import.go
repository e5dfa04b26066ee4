package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/client/ehsm"
)

func newImport(a *app) *cobra.Command {
	var keyID, format string
	cmd := &cobra.Command{
		Use:   "import --key KEY [FILE]",
		Short: "Give a key of external origin its material",
		Long: `import reads the material of an AES or SM4 key, 16, 24 or 32 bytes as its spec
needs, from a file or standard input, and brings it into the core, encrypted to a
key pair that the core made for it. Nobody can get it out of the service again, so
keep a copy if you must. A key takes one material for good.`,
		Example: `  KEY=$(ehsm key create --external)
  openssl rand 32 > key.bin; ehsm import --key $KEY key.bin
  openssl rand -hex 32 | ehsm import --key $KEY --format hex`,
		Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if keyID == "" {
				return withHint(usagef("no --key"), "ehsm key create --external makes one")
			}
			return a.importKey(cmd.Context(), keyID, format, strings.Join(args, ""))
		},
	}
	cmd.Flags().StringVar(&keyID, "key", "", "`id` of the key")
	cmd.Flags().StringVar(&format, "format", "raw", "how the input has the bytes: `raw, hex or base64`")
	return cmd
}

func (a *app) importKey(ctx context.Context, keyID, format, path string) error {
	material, err := a.material(ctx, format, path)
	defer clear(material)
	if err != nil {
		return err
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	switch err := client.ImportKey(ctx, keyID, material); {
	case ehsm.IsImportFailed(err):
		return withHint(err, "the material has not the length of the key's spec, or the key has other material already: ehsm key show "+keyID)
	case err != nil:
		return withKey(err, keyID)
	}
	if a.output == outputText {
		a.warn("key %s has its material", keyID)
		return nil
	}
	return a.emit(map[string]string{"keyid": keyID, "state": "imported"}, "")
}

// material reads the bytes of a key. What is wrong with them is said without
// showing any.
func (a *app) material(ctx context.Context, format, path string) ([]byte, error) {
	decode, ok := map[string]func(string) ([]byte, error){
		"raw":    nil,
		"hex":    hex.DecodeString,
		"base64": base64.StdEncoding.Strict().DecodeString,
	}[format]
	if !ok {
		return nil, usagef("format is %q, want raw, hex or base64", format)
	}
	in, _, err := a.open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	b, _, err := readHead(in, maxMaterial)
	if err != nil {
		clear(b)
		return nil, err
	}
	if decode != nil {
		text := b
		defer clear(text)
		if b, err = decode(strings.TrimSpace(string(text))); err != nil {
			return b, fmt.Errorf("key material is no %s", format) // the decoder's error quotes it
		}
	}
	switch len(b) {
	case 16, 24, 32:
		return b, nil
	}
	return b, withHint(fmt.Errorf("key material has %d bytes, want 16, 24 or 32", len(b)),
		"--format says whether it is raw, hex or base64; a newline at the end is a byte of raw material")
}

// maxMaterial is more than any key has in any format, in bytes.
const maxMaterial = 1 << 10
