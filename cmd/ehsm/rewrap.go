package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

const (
	maxRewrapLine  = 1 << 20 // bytes of a line
	maxRewrapBatch = 4 << 20 // bytes of the ciphertexts of a request as they stand in the file
)

// rewrapFlags are what a rewrap is about. All of it must be the same to go on after an
// interruption.
type rewrapFlags struct {
	in, out   string
	key, to   string
	aad, next string
	field     string
	keepGoing bool
}

func newRewrap(a *app) *cobra.Command {
	var f rewrapFlags
	cmd := &cobra.Command{
		Use:   "rewrap FILE --out FILE",
		Short: "Encrypt the ciphertexts in a file anew",
		Long: `rewrap reads a file with a ciphertext in base64 on each line, as encrypt prints it,
and writes one with the same lines encrypted anew: under another key, or under the
newest version of the key that each was encrypted with. No plaintext leaves the
service. With --field each line is a JSON object, of which one member is the
ciphertext; all else stays as it is, byte for byte. Empty lines stay too.

While it runs the output is called FILE.partial. After an interruption the same
command goes on where that ends. The input is never changed; compare, then put the
output in its place.`,
		Example: `  ehsm rewrap tokens.txt --to $NEW --out tokens.new
  ehsm rewrap users.jsonl --field ssn --out users.new --keep-going`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.in = args[0]
			if f.out == "" || f.out == stdio || f.in == stdio {
				return usagef("want two files: standard input and output do not show where an interrupted rewrap has come to")
			}
			return a.rewrap(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.out, "out", "o", "", "`file` to write, which must not exist yet")
	flags.StringVar(&f.to, "to", "", "`id` of the key to encrypt under; without it that of each ciphertext")
	flags.StringVar(&f.key, "key", "", "`id` of the key that must have been used; any key of yours without it")
	flags.StringVar(&f.aad, "aad", "", "additional data: `text` that the ciphertexts were made with")
	flags.StringVar(&f.next, "new-aad", "", "`text` in its place from now on; without it, it stays")
	flags.StringVar(&f.field, "field", "", "`name` of the member with the ciphertext: lines are JSON objects")
	flags.BoolVar(&f.keepGoing, "keep-going", false, "copy lines that fail as they are and go on")
	return cmd
}

func (a *app) rewrap(ctx context.Context, f rewrapFlags) (err error) {
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
	out, err := openPartial(in, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	r := &rewrapping{app: a, client: client, flags: f, out: out}
	lines := bufio.NewReaderSize(a.progress("rewrap", in, size), 64<<10)
	if err := r.skip(lines); err != nil {
		return err
	}
	if r.line > 0 {
		a.warn("%s has %d lines already: goes on behind them", out.Name(), r.line)
	}
	if err := r.run(ctx, lines); err != nil {
		if h := (hinted{}); errors.As(err, &h) {
			return err
		}
		return withHint(err, "the same command goes on at the first line that "+out.Name()+" does not have")
	}
	if err := out.finish(); err != nil {
		return err
	}
	if r.failed > 0 {
		return fmt.Errorf("%d of %d lines failed, and stand in %s as they were", r.failed, r.line, f.out)
	}
	return a.emit(struct {
		File  string `json:"file"`
		Lines int    `json:"lines"`
	}{f.out, r.line}, fmt.Sprintf("%s: %d lines\n", f.out, r.line))
}

// rewrapping is a rewrap under way.
type rewrapping struct {
	*app
	client *ehsm.Client
	flags  rewrapFlags
	out    *partial

	line    int // lines that are written
	failed  int // of these
	pending []rewrapLine
	size    int // bytes of the pending ciphertexts
}

// readLine reads a line with its end, which the last one need not have. It is io.EOF at
// the end.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxRewrapLine:
			return nil, fmt.Errorf("line is longer than %d bytes", maxRewrapLine)
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, nil
		}
		return line, err
	}
}

// run writes the rest of the lines.
func (r *rewrapping) run(ctx context.Context, lines *bufio.Reader) error {
	for {
		text, err := readLine(lines)
		switch {
		case errors.Is(err, io.EOF):
			return r.flush(ctx)
		case err != nil:
			return fmt.Errorf("line %d: %w", r.line+len(r.pending)+1, err)
		}
		line := parseRewrapLine(text, r.flags.field, r.flags.key)
		if len(r.pending) == api.MaxBatch || r.size+len(text) > maxRewrapBatch || !line.joins(r.pending) {
			if err := r.flush(ctx); err != nil {
				return err
			}
		}
		r.pending = append(r.pending, line)
		r.size += len(text)
	}
}

// flush encrypts the pending lines anew and writes them.
func (r *rewrapping) flush(ctx context.Context) error {
	lines := r.pending
	r.pending, r.size = r.pending[:0], 0
	if err := r.exchange(ctx, lines); err != nil {
		return err
	}
	return r.out.write(func(w io.Writer) error { return r.write(w, lines) })
}

// write writes lines, up to the first one that has failed unless those are copied.
func (r *rewrapping) write(w io.Writer, lines []rewrapLine) error {
	for _, line := range lines {
		if line.err != nil {
			err := fmt.Errorf("line %d: %w", r.line+1, line.err)
			if !r.flags.keepGoing {
				return err
			}
			r.warn("%v", err)
			r.failed++
		}
		if _, err := w.Write(line.result()); err != nil {
			return err
		}
		r.line++
	}
	return nil
}

// exchange has the service encrypt lines of one key anew, with fewer at a time where they
// are of too many versions of it.
func (r *rewrapping) exchange(ctx context.Context, lines []rewrapLine) error {
	var ciphertexts [][]byte
	var at []int
	for i, line := range lines {
		if line.err == nil && line.ciphertext != nil {
			ciphertexts, at = append(ciphertexts, line.ciphertext), append(at, i)
		}
	}
	if len(at) == 0 {
		return nil
	}
	keyID := lines[at[0]].keyID
	items, err := r.client.BatchReEncrypt(ctx, ehsm.ReEncryption{
		From: keyID, To: r.flags.to, AAD: ehsm.BatchAAD{All: []byte(r.flags.aad)}, NewAAD: ehsm.BatchAAD{All: []byte(r.flags.next)},
	}, ciphertexts)
	if ehsm.IsTooManyVersions(err) && len(at) > 1 {
		half := at[len(at)/2]
		return errors.Join(r.exchange(ctx, lines[:half]), r.exchange(ctx, lines[half:]))
	}
	if err != nil {
		return withKey(err, keyID)
	}
	for i, item := range items {
		line := &lines[at[i]]
		line.rewrapped, line.err = item.Value, item.Err
		if refusal := (*api.Error)(nil); errors.As(item.Err, &refusal) {
			line.err = refusal // without its place in the request
		}
	}
	return nil
}
