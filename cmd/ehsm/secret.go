package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

func newSecret(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "secret",
		Short: "Keep passwords and other small texts",
		Long: `A secret is a name with a value that the service encrypts, and its versions. Names
are any text of up to 64 characters, values of up to 4096. Values are read from
files or standard input only, as they are: a newline at the end is part of them.`,
		Example: `  printf %s "$PASSWORD" | ehsm secret create db-password
  ehsm secret get db-password`,
	},
		newSecretCreate(a),
		newSecretPut(a),
		newSecretGet(a),
		newSecretList(a),
		newSecretVersions(a),
		newSecretDescribe(a),
		newSecretSetDescription(a),
		newSecretDelete(a),
		newSecretRestore(a),
	)
}

func newSecretCreate(a *app) *cobra.Command {
	var o ehsm.SecretOptions
	cmd := &cobra.Command{
		Use:   "create NAME [FILE]",
		Short: "Make a secret with its first version",
		Long: `create reads the value from a file or standard input. It is encrypted under a
default key of yours that the service keeps, or under --key, without which it
cannot be read. The rotation interval sets dates to remember; nothing rotates by
itself.`,
		Example: `  ehsm secret create db-password password.txt
  printf %s "$TOKEN" | ehsm secret create token --description "for the build" --rotation 90d`,
		Args: args(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.putSecret(cmd.Context(), args, "created", func(c *ehsm.Client, v ehsm.SecretValue) error {
				return c.CreateSecret(cmd.Context(), args[0], v, o)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.KeyID, "key", "", "`id` of the AES or SM4 key that encrypts the values")
	flags.StringVar(&o.Description, "description", "", "`text` that listings show")
	flags.StringVar(&o.RotationInterval, "rotation", "", "`interval` in which you change the value, such as 90d or 24h")
	return cmd
}

func newSecretPut(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "put NAME [FILE]",
		Short:   "Add a version to a secret, which is then the current one",
		Example: "  ehsm secret put db-password password.txt\n  printf %s \"$PASSWORD\" | ehsm secret put db-password",
		Args:    args(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.putSecret(cmd.Context(), args, "changed", func(c *ehsm.Client, v ehsm.SecretValue) error {
				return c.PutSecretValue(cmd.Context(), args[0], v)
			})
		},
	}
}

// putSecret reads a value and has put store it.
func (a *app) putSecret(ctx context.Context, args []string, state string, put func(*ehsm.Client, ehsm.SecretValue) error) error {
	value, err := a.secretValue(ctx, strings.Join(args[1:], ""))
	if err != nil {
		return err
	}
	return a.changeSecret(args[0], state, func(c *ehsm.Client) error { return put(c, value) })
}

// secretValue reads a value. It is no error that a value is too long for the
// service, unless it is so in any count.
func (a *app) secretValue(ctx context.Context, path string) (ehsm.SecretValue, error) {
	if (path == "" || path == stdio) && isTerminal(a.stdin) {
		return ehsm.SecretValue{}, withHint(usagef("a value that is typed here would be seen"), "name a file, or use a pipe")
	}
	in, _, err := a.open(ctx, path)
	if err != nil {
		return ehsm.SecretValue{}, err
	}
	defer in.Close()
	b, more, err := readHead(in, api.MaxSecretData*utf8.UTFMax)
	defer clear(b)
	switch {
	case err != nil:
		return ehsm.SecretValue{}, err
	case more:
		return ehsm.SecretValue{}, withHint(fmt.Errorf("value has more than %d characters", api.MaxSecretData), "ehsm encrypt is for files of any size")
	case len(b) == 0:
		return ehsm.SecretValue{}, errors.New("value is empty")
	case !utf8.Valid(b):
		return ehsm.SecretValue{}, withHint(errors.New("value is no UTF-8 text"), "encode it first: base64 FILE | ehsm secret put NAME")
	}
	return ehsm.NewSecretValue(string(b)), nil
}

// changeSecret changes a secret and says so.
func (a *app) changeSecret(name, state string, change func(*ehsm.Client) error) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := change(client); err != nil {
		return fmt.Errorf("secret %s: %w", printable(name), err)
	}
	if a.output == outputText {
		a.warn("secret %s is %s", printable(name), state)
		return nil
	}
	return a.emit(map[string]string{"name": name, "state": state}, "")
}

// printable returns a text as it can go to a terminal: quoted if it is not plain.
func printable(s string) string {
	for _, r := range s {
		if !strconv.IsPrint(r) || r == utf8.RuneError {
			return strconv.Quote(s)
		}
	}
	if s == "" || s != strings.TrimSpace(s) || strings.HasPrefix(s, `"`) {
		return strconv.Quote(s)
	}
	return s
}

func newSecretGet(a *app) *cobra.Command {
	var version int
	var out string
	cmd := &cobra.Command{
		Use:   "get NAME",
		Short: "Print the value of a secret",
		Long: `get prints the value as it is, without a newline after it. With -o it goes to a
file that only you may read.`,
		Example: `  ehsm secret get db-password
  ehsm secret get db-password --version 1
  ehsm secret get tls-key -o key.pem`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if version < 0 || version == 0 && cmd.Flags().Changed("version") {
				return usagef("version is %d, want at least 1", version)
			}
			return a.getSecret(cmd.Context(), args[0], version, out)
		},
	}
	cmd.Flags().IntVar(&version, "version", 0, "`number` of the version; the current one without it")
	cmd.Flags().StringVarP(&out, "out", "o", "", "write to a `file`, complete or not at all, instead of standard output")
	return cmd
}

func (a *app) getSecret(ctx context.Context, name string, version int, out string) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	s, err := client.GetSecretValue(ctx, name, version)
	if errors.Is(err, ehsm.ErrNoSecretVersion) {
		err = withHint(err, "ehsm secret versions "+quote(name))
	}
	if err != nil {
		return fmt.Errorf("secret %s: %w", printable(name), err)
	}
	value := s.Value.Expose()
	if out == "" || out == stdio {
		return a.emit(struct {
			Name    string    `json:"name"`
			Version int       `json:"version"`
			Created time.Time `json:"created"`
			Value   string    `json:"value"`
		}{s.Name, s.Version, s.Created.UTC(), value}, value)
	}
	if err := a.writeSecret(out, []byte(value)); err != nil {
		return err
	}
	return a.emitFile(out, int64(len(value)))
}

// date returns a time of the API, nil for none.
func date(millis int64) *time.Time {
	if millis == 0 {
		return nil
	}
	t := time.UnixMilli(millis).UTC()
	return &t
}

func dateText(t *time.Time, none string) string {
	if t == nil {
		return none
	}
	return t.Format(time.RFC3339)
}

// secretView is a secret as the CLI lists it.
type secretView struct {
	Name        string     `json:"name"`
	Description string     `json:"description,omitempty"`
	Created     *time.Time `json:"created"`
	Deletion    *time.Time `json:"deletion"` // null: none is planned
}

func newSecretList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List your secrets, the oldest first, without their values",
		Example: "  ehsm secret list\n  ehsm secret list --output json",
		Args:    args(0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.listSecrets(cmd.Context()) },
	}
}

func (a *app) listSecrets(ctx context.Context) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	list, err := client.ListSecrets(ctx)
	if err != nil {
		return err
	}
	if len(list) == api.MaxSecrets {
		a.warn("the list ends after %d secrets; there may be more", len(list))
	}
	views := make([]secretView, 0, len(list))
	text := table("NAME", "CREATED", "DELETION", "DESCRIPTION")
	for _, s := range list {
		v := secretView{s.SecretName, s.Description, date(s.CreateTime), date(s.PlannedDeleteTime)}
		views = append(views, v)
		description := ""
		if v.Description != "" {
			description = printable(v.Description)
		}
		text.row(printable(v.Name), dateText(v.Created, "-"), dateText(v.Deletion, "none"), description)
	}
	return a.emit(views, text.String())
}

// textTable aligns columns.
type textTable struct {
	text strings.Builder
	w    *tabwriter.Writer
}

func table(columns ...string) *textTable {
	t := &textTable{}
	t.w = tabwriter.NewWriter(&t.text, 0, 0, 2, ' ', 0)
	t.row(columns...)
	return t
}

func (t *textTable) row(cells ...string) { io.WriteString(t.w, strings.Join(cells, "\t")+"\n") }

// String returns the table, which then is complete.
func (t *textTable) String() string {
	t.w.Flush()
	return t.text.String()
}

func newSecretVersions(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "versions NAME",
		Short:   "List the versions of a secret; the last is the current one",
		Example: "  ehsm secret versions db-password",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			list, err := client.ListSecretVersions(cmd.Context(), args[0])
			if err != nil {
				return fmt.Errorf("secret %s: %w", printable(args[0]), err)
			}
			type view struct {
				Version int        `json:"version"`
				Created *time.Time `json:"created"`
			}
			var views []view
			text := table("VERSION", "CREATED")
			for _, v := range list {
				views = append(views, view{v.VersionID, date(v.CreateTime)})
				text.row(strconv.Itoa(v.VersionID), dateText(date(v.CreateTime), "-"))
			}
			return a.emit(views, text.String())
		},
	}
}
