package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	_ "crypto/sha256" // hashes large messages
	_ "crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// signFlags are what sign and verify have in common.
type signFlags struct {
	keyID     string
	digest    string
	padding   string
	prehashed bool
	in        string // the argument
}

func (f *signFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.keyID, "key", "", "`id` of the key")
	flags.StringVar(&f.digest, "digest", "", "`hash` of the message: sha224, sha256, sha384, sha512 or sm3; sha256 without it, sm3 for SM2 keys")
	flags.StringVar(&f.padding, "padding", "pss", "`pss or pkcs1`, for RSA keys")
	flags.BoolVar(&f.prehashed, "prehashed", false, "the input is the digest of the message, as bytes")
}

func (f *signFlags) options() (o ehsm.SignatureOptions, err error) {
	if f.keyID == "" {
		return o, withHint(usagef("no --key"), "ehsm key create --usage sign makes one, ehsm key list shows yours")
	}
	if o.Digest, err = parseDigest(f.digest); err != nil {
		return o, err
	}
	o.Padding, err = parsePadding(f.padding, "pss", "pkcs1")
	return o, err
}

func newSign(a *app) *cobra.Command {
	var f signFlags
	var out string
	var binary bool
	cmd := &cobra.Command{
		Use:   "sign --key KEY [FILE]",
		Short: "Sign a file or standard input",
		Long: `sign prints the signature of a message as base64; with --binary it writes the
bytes, as openssl reads them. The core hashes a message of up to 6 KiB; a longer
one is hashed on this machine, for RSA and EC keys.

RSA signatures are as long as the modulus, those of EC and SM2 keys an ASN.1
sequence of two numbers, those of HMAC keys 32 bytes.`,
		Example: `  ehsm sign --key $KEY contract.pdf
  ehsm sign --key $KEY --binary contract.pdf -o contract.sig
  ehsm pubkey $KEY -o key.pem; openssl dgst -sha256 -verify key.pem -signature contract.sig contract.pdf`,
		Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.in = strings.Join(args, "")
			return a.sign(cmd.Context(), f, out, binary)
		},
	}
	f.add(cmd)
	addOut(cmd, &out, &binary)
	return cmd
}

// addOut adds the flags that say where a small result goes.
func addOut(cmd *cobra.Command, out *string, binary *bool) {
	cmd.Flags().StringVarP(out, "out", "o", "", "write to a `file`, complete or not at all, instead of standard output")
	cmd.Flags().BoolVar(binary, "binary", false, "write the bytes themselves, not base64")
}

// finishBytes writes a small result as base64 or, if binary, as it is.
func (a *app) finishBytes(out string, binary bool, member string, value []byte) error {
	text := base64.StdEncoding.EncodeToString(value) + "\n"
	if binary {
		text = string(value)
		if (out == "" || out == stdio) && isTerminal(a.stdout) {
			return withHint(usagef("bytes are not for a terminal"), "write them to a file with -o")
		}
	}
	return a.finish(cryptFlags{out: out}, member, value, text)
}

func (a *app) sign(ctx context.Context, f signFlags, out string, binary bool) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	m, err := a.message(ctx, client, f, &o)
	if err != nil {
		return err
	}
	sign := client.SignMessage
	if m.hashed {
		sign = client.SignDigest
	}
	signature, err := sign(ctx, f.keyID, m.data, o)
	if err != nil {
		return withKey(err, f.keyID)
	}
	return a.finishBytes(out, binary, "signature", signature)
}

// A message is what the service is given to sign: the message or its digest.
type message struct {
	data   []byte
	hashed bool
}

// message reads the input. What the service does not take whole, it hashes, and
// sets the digest in o.
func (a *app) message(ctx context.Context, client *ehsm.Client, f signFlags, o *ehsm.SignatureOptions) (message, error) {
	in, size, err := a.open(ctx, f.in)
	if err != nil {
		return message{}, err
	}
	defer in.Close()
	head, more, err := readHead(in, api.MaxMessage)
	switch {
	case err != nil:
		return message{}, err
	case f.prehashed && len(head) > crypto.SHA512.Size():
		return message{}, withHint(errors.New("input is longer than any digest"), "without --prehashed the message is hashed for you")
	case f.prehashed:
		return message{head, true}, nil
	case len(head) > 0 && !more:
		return message{head, false}, nil
	}
	o.Digest = cmp.Or(o.Digest, api.SHA256)
	h := map[api.DigestMode]crypto.Hash{
		api.SHA224: crypto.SHA224, api.SHA256: crypto.SHA256, api.SHA384: crypto.SHA384, api.SHA512: crypto.SHA512,
	}[o.Digest]
	key, err := client.PublicKey(ctx, f.keyID)
	switch {
	case ehsm.IsKeyDisabled(err), ehsm.IsKeyNotFound(err):
		return message{}, withKey(err, f.keyID)
	case err != nil || key.Spec == api.SM2 || h == 0:
		return message{}, errors.Join(fmt.Errorf("only RSA and EC keys sign an empty message, or more than %d bytes, and not with sm3", api.MaxMessage), err)
	}
	hash := h.New()
	_, err = io.Copy(hash, a.progress("hash", io.MultiReader(bytes.NewReader(head), in), size))
	return message{hash.Sum(nil), true}, err
}

func newVerify(a *app) *cobra.Command {
	var f signFlags
	var signature string
	cmd := &cobra.Command{
		Use:   "verify --key KEY --signature FILE [MESSAGE]",
		Short: "Check a signature",
		Long: `verify has the core check a signature, as base64 or as the bytes themselves, of
a message from a file or standard input. It prints "valid" and exits with 0, or
exits with 1. Digest and padding must be those that were signed with.`,
		Example: `  ehsm verify --key $KEY --signature contract.sig contract.pdf
  ehsm verify --key $RSA --padding pkcs1 --signature contract.sig contract.pdf`,
		Args: args(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.in = strings.Join(args, "")
			return a.verify(cmd.Context(), f, signature)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&signature, "signature", "", "`file` with the signature")
	return cmd
}

var errInvalid = errors.New("signature is not valid")

func (a *app) verify(ctx context.Context, f signFlags, file string) error {
	o, err := f.options()
	if err == nil && file == "" {
		err = usagef("no --signature")
	}
	if err != nil {
		return err
	}
	signature, err := a.readText(ctx, file, api.MaxSignature)
	if err != nil {
		return err
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	m, err := a.message(ctx, client, f, &o)
	if err != nil {
		return err
	}
	verify := client.VerifyMessage
	if m.hashed {
		verify = client.VerifyDigest
	}
	valid, err := verify(ctx, f.keyID, m.data, signature, o)
	if err != nil {
		return withKey(err, f.keyID)
	}
	if !valid && a.output == outputText {
		return errInvalid
	}
	err = a.emit(map[string]bool{"valid": valid}, "valid\n")
	if err == nil && !valid {
		err = errInvalid
	}
	return err
}

// readText reads up to limit bytes that a file has as base64 or as they are.
func (a *app) readText(ctx context.Context, path string, limit int) ([]byte, error) {
	in, _, err := a.open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, more, err := readHead(in, 2*limit) // base64 with white space in it
	if err != nil {
		return nil, err
	}
	b := ciphertextOf(text)
	if more || len(b) > limit {
		return nil, fmt.Errorf("input %s has more than %d bytes", path, limit)
	}
	return b, nil
}
