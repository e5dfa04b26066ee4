// Command ehsm is the command line of eHSM-KMS: it calls a service, checks audit
// trails, and runs a whole simulated service for development (ehsm dev).
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	a := &app{getenv: os.Getenv, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, confined: true}
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2 // the command line is wrong; nothing was done
)

// run executes one command line. Results go to stdout, all else to stderr.
func (a *app) run(ctx context.Context, args []string) int {
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		return a.report(err)
	}
	return exitOK
}

// An app is what the commands share: the streams and the flags that every
// command has.
type app struct {
	getenv         func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
	confined       bool // ehsm dev confines the process for good, which tests could not do with

	profile     string
	url         string
	caFile      string
	fingerprint string
	plain       bool
	output      string
}

const (
	outputText = "text"
	outputJSON = "json"
)

// newRoot returns the table of commands.
func newRoot(a *app) *cobra.Command {
	root := group(&cobra.Command{
		Use:   "ehsm",
		Short: "Use and try eHSM-KMS",
		Long: `ehsm calls an eHSM-KMS service. It finds the service and your credentials in a
profile of ` + "`$XDG_CONFIG_HOME/ehsm/config.yaml`" + ` (~/.config without it), which
"ehsm enroll" and "ehsm dev" write. Without --profile it is the one named
"default", or "dev" if there is none of another tenant.

These variables take precedence over the profile, and flags over them:
  EHSM_ADDR          address of the service, https://host:port
  EHSM_SERVER_URL    the same with /ehsm at the end
  EHSM_CA_FILE       PEM file of the roots that vouch for the server
  EHSM_FINGERPRINT   SHA-256 of the server's certificate
  EHSM_INSECURE      1: any certificate and plain http; loopback addresses only
  EHSM_APPID, EHSM_APIKEY   credentials, both or none

Every result is checked to come from the core in the TEE. With a profile that has a
domain and a policy ("ehsm attest verify --pin") the core is verified first, and
requests are encrypted to it. Exit codes: 0 done,
1 failed, 2 wrong usage.`,
		Example: `  ehsm dev                                    # in one terminal
  KEY=$(ehsm key create)                      # in another
  echo hello | ehsm encrypt --key $KEY | ehsm decrypt`,
		SilenceErrors: true,
		SilenceUsage:  true,
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.profile, "profile", "", "`name` of the profile to use")
	flags.StringVar(&a.url, "url", "", "address of the service, https://`host:port`")
	flags.StringVar(&a.caFile, "ca-file", "", "PEM `file` of the roots that vouch for the server")
	flags.StringVar(&a.fingerprint, "fingerprint", "", "`SHA-256` of the server's certificate in hex")
	flags.BoolVar(&a.plain, "plain", false, "do not seal requests: the host of the service reads them")
	flags.StringVar(&a.output, "output", outputText, "form of the results, `text or json`")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if a.output != outputText && a.output != outputJSON {
			return usagef("output is %q, want text or json", a.output)
		}
		return nil
	}
	root.AddCommand(
		newDev(a),
		newEnroll(a),
		newLogin(a),
		newAdmin(a),
		newCredential(a),
		newPolicy(a),
		newKey(a),
		newEncrypt(a),
		newDecrypt(a),
		newRewrap(a),
		newDataKey(a),
		newExportDataKey(a),
		newSign(a),
		newVerify(a),
		newPubKey(a),
		newImport(a),
		newSecret(a),
		newAPI(a),
		newAudit(a),
		newDomain(a),
		newAttest(a),
		newQuotePolicy(a),
		newVersion(a),
		newBench(a),
		newBenchCeiling(a),
		newBenchNoise(a),
	)
	return root
}

// group makes a command that only has others below it: alone it prints its help,
// and a word that is none of them is a usage error.
func group(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.AddCommand(children...)
	cmd.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		c.SuggestionsMinimumDistance = 2
		hint := c.CommandPath() + " --help"
		if s := c.SuggestionsFor(args[0]); len(s) > 0 {
			hint = c.CommandPath() + " " + strings.Join(s, ", ")
		}
		return withHint(usagef("unknown command %q for %q", args[0], c.CommandPath()), hint)
	}
	cmd.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	return cmd
}

// args returns a check of the number of arguments, max < 0 for any number.
func args(min, max int) cobra.PositionalArgs {
	return func(c *cobra.Command, got []string) error {
		if len(got) < min || max >= 0 && len(got) > max {
			return withHint(usagef("got %d arguments, want: %s", len(got), c.UseLine()), c.CommandPath()+" --help")
		}
		return nil
	}
}

// warn writes a line for people to stderr.
func (a *app) warn(format string, v ...any) {
	fmt.Fprintf(a.stderr, "ehsm: "+format+"\n", v...)
}
