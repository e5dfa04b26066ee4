package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// cryptFlags are what encrypt and decrypt have in common.
type cryptFlags struct {
	keyID string
	aad   string
	out   string
	in    string // the argument
}

func (f *cryptFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.aad, "aad", "", "additional data: `text` that must be the same again to decrypt")
	cmd.Flags().StringVarP(&f.out, "out", "o", "", "write to a `file`, complete or not at all, instead of standard output")
}

func newEncrypt(a *app) *cobra.Command {
	var f cryptFlags
	cmd := &cobra.Command{
		Use:   "encrypt --key KEY [FILE]",
		Short: "Encrypt a file or standard input",
		Long: `encrypt sends up to 6 KiB to the service and prints the ciphertext as base64.
Everything larger, and an empty input, is encrypted on this machine under a data
key that the service wraps: an envelope, which is binary. decrypt reads both.`,
		Example: `  echo hello | ehsm encrypt --key $KEY
  ehsm encrypt --key $KEY --aad backup.tar backup.tar -o backup.tar.enc`,
		Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.in = strings.Join(args, "")
			if f.keyID == "" {
				return withHint(usagef("no --key"), "ehsm key create makes one, ehsm key list shows yours")
			}
			return a.encrypt(cmd.Context(), f)
		},
	}
	cmd.Flags().StringVar(&f.keyID, "key", "", "`id` of the key")
	f.add(cmd)
	return cmd
}

func (a *app) encrypt(ctx context.Context, f cryptFlags) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	in, size, err := a.open(ctx, f.in)
	if err != nil {
		return err
	}
	defer in.Close()
	head, more, err := readHead(in, api.MaxPlaintext)
	if err != nil {
		return err
	}
	if len(head) > 0 && !more {
		ct, err := client.Encrypt(ctx, f.keyID, head, []byte(f.aad))
		if err != nil {
			return withKey(err, f.keyID)
		}
		return a.finish(f, "ciphertext", ct, base64.StdEncoding.EncodeToString(ct)+"\n")
	}
	if (f.out == "" || f.out == stdio) && isTerminal(a.stdout) {
		return withHint(usagef("an envelope is binary and not for a terminal"), "write it to a file with -o")
	}
	whole := a.progress("encrypt", io.MultiReader(bytes.NewReader(head), in), size)
	return a.stream(f, func(dst io.Writer) error {
		w, err := client.Envelope(f.keyID, []byte(f.aad)).Encrypt(ctx, dst)
		if err != nil {
			return withKey(err, f.keyID)
		}
		if _, err := io.Copy(w, whole); err != nil {
			return err
		}
		return w.Close()
	})
}

// readHead reads up to limit bytes, and says whether more follow, of which it
// returns one.
func readHead(r io.Reader, limit int) (head []byte, more bool, err error) {
	head = make([]byte, limit+1)
	n, err := io.ReadFull(r, head)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return head[:n], n > limit, err
}

// finish writes a small result: to the file of --out as text, else as the
// member of a JSON object or as text, as --output says.
func (a *app) finish(f cryptFlags, member string, value []byte, text string) error {
	if f.out == "" || f.out == stdio {
		return a.emit(map[string][]byte{member: value}, text)
	}
	if err := a.write(f.out, func(w io.Writer) error { _, err := io.WriteString(w, text); return err }); err != nil {
		return err
	}
	return a.emitFile(f.out, int64(len(text)))
}

// stream has a function write a large result.
func (a *app) stream(f cryptFlags, produce func(io.Writer) error) error {
	toFile := f.out != "" && f.out != stdio
	if !toFile && a.output == outputJSON {
		return withHint(usagef("a result of this size has no JSON form"), "write it to a file with -o")
	}
	var n int64
	err := a.write(f.out, func(w io.Writer) error {
		counted := &counter{w: w}
		err := produce(counted)
		n = counted.n
		return err
	})
	if err != nil || !toFile {
		return err
	}
	return a.emitFile(f.out, n)
}

// emitFile says in JSON which file was written; as text it says nothing.
func (a *app) emitFile(path string, n int64) error {
	return a.emit(struct {
		File string `json:"file"`
		Size int64  `json:"size"`
	}{path, n}, "")
}

type counter struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func newDecrypt(a *app) *cobra.Command {
	var f cryptFlags
	cmd := &cobra.Command{
		Use:   "decrypt [FILE]",
		Short: "Decrypt what encrypt wrote",
		Long: `decrypt reads a ciphertext of the service, as base64 or as the bytes themselves,
or an envelope, from a file or standard input. Both name their key.

With -o the file appears only if all of it is genuine. On standard output, what
comes out is genuine, but only exit code 0 says that it is complete.`,
		Example: `  ehsm decrypt secret.bin
  ehsm decrypt --aad backup.tar backup.tar.enc -o backup.tar`,
		Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.in = strings.Join(args, "")
			return a.decrypt(cmd.Context(), f)
		},
	}
	cmd.Flags().StringVar(&f.keyID, "key", "", "`id` of the key that must have been used; any key of yours without it")
	f.add(cmd)
	return cmd
}

// maxText bounds the base64 of a ciphertext with white space around and in it.
const maxText = 32 << 10 // bytes

func (a *app) decrypt(ctx context.Context, f cryptFlags) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	in, size, err := a.open(ctx, f.in)
	if err != nil {
		return err
	}
	defer in.Close()
	head, more, err := readHead(in, maxText)
	switch {
	case err != nil:
		return err
	case !ehsm.IsEnvelope(head) && more:
		return errors.New("input is no envelope, and too long for a ciphertext of the service")
	case !ehsm.IsEnvelope(head):
		return a.decryptDirect(ctx, client, f, head)
	}
	whole := a.progress("decrypt", io.MultiReader(bytes.NewReader(head), in), size)
	return a.stream(f, func(dst io.Writer) error {
		r, err := client.Envelope(f.keyID, []byte(f.aad)).Decrypt(ctx, whole)
		if err != nil {
			keyID, _ := ehsm.EnvelopeKeyID(head)
			return withKey(err, keyID)
		}
		_, err = io.Copy(dst, r)
		return err
	})
}

// decryptDirect decrypts what the service encrypted itself.
func (a *app) decryptDirect(ctx context.Context, client *ehsm.Client, f cryptFlags, text []byte) error {
	ct := ciphertextOf(text)
	keyID, ok := ehsm.CiphertextKeyID(ct)
	switch {
	case !ok && f.keyID == "":
		return errors.New("input is neither an envelope nor a ciphertext that names its key")
	case !ok:
		keyID = f.keyID
	case f.keyID != "" && f.keyID != keyID:
		return fmt.Errorf("ciphertext is for another key than asked for: %s", keyID)
	}
	plain, err := client.Decrypt(ctx, keyID, ct, []byte(f.aad))
	if err != nil {
		return withKey(err, keyID)
	}
	defer clear(plain)
	return a.finish(f, "plaintext", plain, string(plain))
}

// ciphertextOf decodes base64, with white space anywhere; other data are taken as
// they are.
func ciphertextOf(text []byte) []byte {
	ct, err := base64.StdEncoding.Strict().DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		return text
	}
	return ct
}
