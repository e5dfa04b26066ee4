package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

type apiFlags struct {
	action, payload string
	curl, raw       bool
}

func newAPI(a *app) *cobra.Command {
	var f apiFlags
	cmd := &cobra.Command{
		Use:   "api ACTION [JSON | @FILE | -]",
		Short: "Sign and send any request of the API",
		Long: `api signs a payload, sends it, checks the reply's signature and prints the
result. The payload is a JSON object: in the argument, in a file, or on standard
input; keep secrets out of the argument. Members that are null, "", 0, false or
empty arrays are not covered by signatures and have no effect.

--curl prints a line for the shell instead. It works once, for a few minutes, and
checks neither the reply's signature nor a pinned certificate.`,
		Example: `  ehsm api ListKey
  ehsm api Encrypt '{"keyid":"'$KEY'","plaintext":"aGVsbG8="}'
  ehsm api DisableKey --curl '{"keyid":"'$KEY'"}' | sh`,
		Args: args(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.action = args[0]
			if len(args) == 2 {
				f.payload = args[1]
			}
			return a.api(cmd.Context(), f)
		},
	}
	cmd.Flags().BoolVar(&f.curl, "curl", false, "print the request as a curl command, do not send it")
	cmd.Flags().BoolVar(&f.raw, "raw", false, "print the whole reply as it came, also of a refusal")
	return cmd
}

const maxPayload = 8 << 20 // bytes

func (a *app) api(ctx context.Context, f apiFlags) error {
	if f.action == api.GetEvidence {
		return withHint(usagef("%s has a challenge and no payload", f.action), "ehsm attest verify asks for evidence, and judges it")
	}
	payload, err := a.payload(ctx, f.payload)
	if err != nil {
		return err
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if f.curl {
		return a.curl(client, f.action, payload)
	}
	body, err := client.Raw(ctx, f.action, payload)
	var refusal *api.Error
	switch {
	case f.raw && (err == nil || errors.As(err, &refusal)):
		return errors.Join(a.print(string(body)+"\n"), err)
	case err != nil:
		return err
	}
	var reply api.Reply[json.RawMessage]
	if err := json.Unmarshal(body, &reply); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := json.Indent(&text, reply.Result, "", "  "); err != nil {
		return err
	}
	return a.print(text.String() + "\n")
}

// payload returns the bytes that the argument names.
func (a *app) payload(ctx context.Context, arg string) ([]byte, error) {
	name, isFile := strings.CutPrefix(arg, "@")
	if arg != stdio && !isFile {
		if arg != "" && !json.Valid([]byte(arg)) {
			return nil, usagef("payload is no JSON")
		}
		return []byte(arg), nil
	}
	in, _, err := a.open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, maxPayload+1))
	if err == nil && len(b) > maxPayload {
		err = fmt.Errorf("payload has more than %d bytes", maxPayload)
	}
	return b, err
}

// curl prints a command for the shell that sends the signed request.
func (a *app) curl(client *ehsm.Client, action string, payload []byte) error {
	cfg, err := a.settings()
	if err != nil {
		return err
	}
	words := []string{"curl", "-sS"}
	switch {
	case cfg.CAFile != "":
		words = append(words, "--cacert", quote(cfg.CAFile))
	case cfg.Fingerprint != "" || cfg.Insecure:
		words = append(words, "--insecure")
		a.warn("curl cannot check the certificate's fingerprint; it will accept any certificate")
	}
	words = append(words, quote(client.URL(action)))
	if action != api.Enroll && action != api.GetVersion {
		body, err := client.Sign(action, payload)
		if err != nil {
			return err
		}
		words = append(words, "-H", quote("Content-Type: application/json"), "--data-raw", quote(string(body)))
	}
	return a.print(strings.Join(words, " ") + "\n")
}

// quote makes s one word of a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
