// Command ehsm-dkeyserver makes the DomainKey of a domain, keeps it sealed, and
// hands it to attested programs of the domain. It runs in a TEE. Its import block
// is evidence: no web server, no database.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/launch"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// program is what seal keys and the domain's manifest know this program by. An
// enclave must be signed so.
var program = launch.Program{Name: "ehsm-dkeyserver", Prefix: "EHSM_DKEYSERVER_", Product: tee.ProductDKeyServer, SVN: 1}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr, true))
}

const help = `ehsm-dkeyserver makes the DomainKey of a domain and hands it to the programs
that the domain's manifest admits: to ehsm-dkeycache on each node, and to other
dkeyservers. It runs in a TEE and looks into the TEE of each of them first.

  ehsm-dkeyserver init [--no-recovery] DRAFT
        Make a domain in EHSM_DKEYSERVER_DOMAIN, which must not exist: its
        DomainKey, sealed for this machine, and its genesis, which is DRAFT
        completed with the domain's public key. Print the domain id. Operators
        sign genesis.json next; until a quorum has, nothing is served. Custodians
        get shares of a recovery key, share-NAME.sealed in the directory; a draft
        without custodians needs --no-recovery.
  ehsm-dkeyserver serve
        Serve the domain. One that lost its DomainKey ends; it never makes
        another. A worker that has none yet waits until a dkeyserver of
        EHSM_DKEYSERVER_PEERS gives it one, and then serves without them.
        Machines that ask and that the manifest does not admit are in
        waiting.json of the domain's directory.
        On a platform without seal keys nothing is kept: after each start k of n
        custodians give it the DomainKey of the escrow in the directory, as for
        restore, or else a dkeyserver of EHSM_DKEYSERVER_PEERS, if there is one.
  ehsm-dkeyserver recovery MANIFEST
        Make a new recovery key for the custodians of MANIFEST, which was edited
        from the one in force and is not signed yet. Its file gets the public
        part; the shares go to the directory. It counts once operators signed.
        Without a seal key the custodians of now release their shares to it first:
        DIRECTORY.recovery/request.
  ehsm-dkeyserver restore BACKUP [MANIFEST...]
        Make the directory EHSM_DKEYSERVER_DOMAIN, which must not exist, of a
        backup, after all machines were lost: k of n custodians release their
        shares to this TEE. The manifest must admit this machine: the last one of
        the backup, or one of those given, which follow it. What custodians get
        is DIRECTORY.restore/request; their answers go beside it, as *.answer.
        Without a seal key only the directory is made; serve asks custodians.
  ehsm-dkeyserver hsm rewrap --to LABEL
        In a domain whose root is hsm: write domainkey.sealed anew, wrapped with
        the key LABEL of the HSM, which ehsm-hsm must have been told of. The
        server must have ended; this takes its address meanwhile.

Outside of enclaves it keeps keys in memory that the kernel shows to nobody, dumps
no core, and can start no programs; at start it says what it has got.

Settings, all from the environment:
`

// run does what args say. Confined, the process can do nothing else afterwards,
// which is no life for one that runs tests.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer, confined bool) int {
	if len(args) == 0 {
		args = []string{"serve"}
	}
	var err error
	draft, without := initArgs(args[1:])
	switch {
	case args[0] == "--help" || args[0] == "-h" || args[0] == "help":
		fmt.Fprint(stdout, help, config.DescribeDKeyServer())
		return 0
	case args[0] == "--version" || args[0] == "version":
		fmt.Fprintln(stdout, "ehsm-dkeyserver", api.Version, api.Commit())
		return 0
	case args[0] == "init" && draft != "":
		err = initialize(ctx, draft, without, getenv, stdout, stderr)
	case args[0] == "recovery" && len(args) == 2:
		err = newRecovery(ctx, args[1], getenv, stderr, confined)
	case args[0] == "restore" && len(args) > 1:
		err = restore(ctx, args[1], args[2:], getenv, stderr, confined)
	case len(args) == 4 && slices.Equal(args[:3], []string{"hsm", "rewrap", "--to"}):
		err = rewrap(ctx, args[3], getenv, stdout, stderr, confined)
	case args[0] == "serve" && len(args) == 1:
		config.TuneCollector(ctx, getenv, 200)
		err = serve(ctx, getenv, stderr, confined)
	default:
		fmt.Fprintf(stderr, "ehsm-dkeyserver: unknown arguments %q\nehsm-dkeyserver: hint: ehsm-dkeyserver --help\n", args)
		return 2
	}
	if err != nil {
		fmt.Fprintf(stderr, "ehsm-dkeyserver: %v\n", err)
		return 1
	}
	return 0
}
