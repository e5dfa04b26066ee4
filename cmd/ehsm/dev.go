package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/harden/fence"
	"github.com/ehsm-kms/ehsm/internal/host/dev"
	"github.com/ehsm-kms/ehsm/internal/host/dev/nodes"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// devCredentials is the file of a data directory with the profile of its first
// tenant, so that another start with the same data finds the same keys.
const devCredentials = "client.yaml"

type devFlags struct {
	listen, data string
	http         bool
	noProfile    bool
	limit        int
	several      bool // programs of their own, for so many nodes:
	nodes        int
	database     string
}

func newDev(a *app) *cobra.Command {
	var f devFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole simulated service on this machine",
		Long: `dev runs manager, core and database in one process on a simulated TEE: keys are
protected by file permissions only. Everything it keeps is in one directory. At
its first start it enrolls a tenant; at every start it writes how to reach the
service as that tenant to the profile "dev", or the one of --profile. Once it is
ready it can write to the data directory only, and start no programs. In there,
administrator.key is for "ehsm admin", and custodian-1.key to custodian-3.key are for
"ehsm domain custodian rekey".

With --nodes it runs a domain of several nodes instead, with the programs of a real
one, which must be in the directory of ehsm ("make build"). Each node is a simulated
machine with a manager, a core and a dkeycache; the first has the root dkeyserver
too, the second a worker. The nodes share a PostgreSQL, which must be installed, or
running somewhere (--database). The manager of the first node listens on --listen,
the others on the ports after it. Kill any program and see who goes on without it;
SIGUSR1 to dev starts again what has ended. The data directory has, in each nodeN,
NAME.pid and NAME.log of each program, and operator.key, which signs manifests.`,
		Example: `  ehsm dev
  ehsm dev --data /tmp/kms --listen 127.0.0.1:0 --profile try
  ehsm dev --nodes 3
  ehsm dev --nodes 3 --database postgres://ehsm@127.0.0.1:5433/postgres`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.several = cmd.Flags().Changed("nodes")
			return a.dev(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:9000", "`host:port` to listen on; port 0 takes a free one")
	flags.StringVar(&f.data, "data", "", "`directory` of all data; ehsm in $XDG_STATE_HOME or ~/.local/state without it, ehsm-nodes with --nodes")
	flags.BoolVar(&f.http, "http", false, "plain http, on loopback addresses only")
	flags.IntVar(&f.limit, "limit", 0, "`requests` a second that an app may make, and twice as many at once; of the first start; any number without it")
	flags.IntVar(&f.nodes, "nodes", 0, "run a domain of so many `nodes`, 1 to 9, each with programs of its own")
	flags.StringVar(&f.database, "database", "", "`URL` of the PostgreSQL that the nodes share; one of their own without it")
	flags.BoolVar(&f.noProfile, "no-profile", false, "enroll nobody and write no profile")
	return cmd
}

// started is what dev prints when it is ready.
type started struct {
	URL         string `json:"url"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Data        string `json:"data"`
	Domain      string `json:"domain"`
	Profile     string `json:"profile,omitempty"`
	Next        string `json:"next,omitempty"`
}

func (a *app) dev(ctx context.Context, f devFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	if f.data == "" {
		state, err := a.userDir("XDG_STATE_HOME", filepath.Join(".local", "state"))
		if err != nil {
			return withHint(err, "name the data directory with --data")
		}
		f.data = filepath.Join(state, f.home())
	}
	a.warn("simulated TEE: keys are protected by file permissions only; do not put real keys here")
	if f.several {
		return a.devNodes(ctx, f)
	}
	if nodes.Exists(f.data) {
		return withHint(fmt.Errorf("%s has a domain of several nodes", f.data), "ehsm dev --nodes 3 --data "+shellWord(f.data)+", or another --data")
	}
	config.TuneCollector(ctx, a.getenv, 400)
	log := slog.New(slog.NewTextHandler(a.stderr, nil))
	administrator, custodians, err := firstPeople(f.data)
	if err != nil {
		return err
	}
	server, err := dev.Start(ctx, dev.Options{Dir: f.data, Listen: f.listen, PlainHTTP: f.http, Log: log, Administrator: administrator, Custodians: custodians, Rate: f.limit, Locked: true})
	if err != nil {
		return err
	}
	if err := a.ready(ctx, f, server); err != nil {
		return errors.Join(err, server.Close())
	}
	return server.Wait()
}

// firstPeople makes the keys of administrator and custodians of a domain that is yet to
// be made in a data directory, administrator.key and custodian-1.key to -3.key in it. A
// domain that is there has the ones that it has.
func firstPeople(dir string) (administrator manifest.Person, custodians *manifest.Quorum, err error) {
	if _, err := os.Stat(filepath.Join(dir, dev.DomainDir)); err == nil {
		return administrator, nil, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return administrator, nil, fmt.Errorf("data directory: %w", err)
	}
	k, err := devKey(dir, devAdministrator, manifest.Administrator)
	if err != nil {
		return administrator, nil, err
	}
	administrator, custodians = k.person, &manifest.Quorum{Threshold: 2}
	for i := range devCustodians {
		if k, err = devKey(dir, fmt.Sprint(devCustodian, "-", i+1), manifest.Custodian); err != nil {
			return administrator, nil, err
		}
		custodians.Members = append(custodians.Members, k.person)
	}
	return administrator, custodians, nil
}

// check finds flags that do not go together.
func (f devFlags) check() error {
	switch {
	case f.several && (f.nodes < 1 || f.nodes > nodes.Most):
		return usagef("%d nodes, want 1 to %d", f.nodes, nodes.Most)
	case f.limit < 0 || f.several && f.limit > 0:
		return usagef("--limit %d, want at least 0, and only without --nodes", f.limit)
	case f.several && f.http:
		return usagef("--http is not for several nodes")
	case !f.several && f.database != "":
		return usagef("--database is for several nodes: --nodes 3")
	}
	return nil
}

// home is the directory's name below those of other programs.
func (f devFlags) home() string {
	if f.several {
		return "ehsm-nodes"
	}
	return "ehsm"
}

// ready enrolls the first tenant if need be and says how to go on.
func (a *app) ready(ctx context.Context, f devFlags, server *dev.Server) error {
	s := started{URL: server.URL(), Fingerprint: server.Fingerprint(), Data: f.data, Domain: hex.EncodeToString(server.Info.Domain[:])}
	if !f.noProfile {
		p, err := devTenant(ctx, f.data, service{server.URL(), server.Fingerprint(), s.Domain, server.First})
		if err != nil {
			return err
		}
		// Without a profile the service is of use all the same.
		if s.Profile, s.Next, err = a.writeDevProfile(p); err != nil {
			a.warn("no profile written: %v", err)
		}
	}
	if err := a.confine(f.data, server); err != nil {
		return err
	}
	text := fmt.Sprintf("eHSM-KMS is ready\n  url:         %s\n  fingerprint: %s\n  data:        %s\n  domain:      %s\n",
		s.URL, cmp.Or(s.Fingerprint, "none, plain http"), s.Data, s.Domain)
	if s.Profile != "" {
		text += fmt.Sprintf("  profile:     %s\n  next:        %s\n", s.Profile, s.Next)
	}
	return a.emit(s, text)
}

// confine takes from the process what it does not need once the profile is
// written, and says what it has taken.
func (a *app) confine(data string, server *dev.Server) error {
	a.warn("keys in %s", server.KeyMemory)
	if !a.confined {
		return nil
	}
	report, err := fence.Confine(fence.Paths{Write: []string{data}})
	if err == nil {
		a.warn("%s", report)
	}
	return err
}

// A service is one that was just started.
type service struct {
	url, fingerprint string
	domain           string
	first            bool // its domain was made by this start
}

// devTenant returns the profile of the tenant that a data directory has, as the
// service is reached now.
func devTenant(ctx context.Context, data string, s service) (profile, error) {
	path := filepath.Join(data, devCredentials)
	var p profile
	if !s.first {
		b, err := readPrivate(path)
		if err == nil {
			err = decodeYAML(path, b, &p)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return p, fmt.Errorf("read credentials: %w", err)
		}
	}
	p.URL, p.Fingerprint, p.Insecure, p.Domain = s.url, s.fingerprint, s.fingerprint == "", s.domain
	if p.AppID != "" {
		return p, nil
	}
	client, err := ehsm.New(ehsm.Config{URL: p.URL, Fingerprint: p.Fingerprint, Insecure: p.Insecure})
	if err != nil {
		return p, err
	}
	defer client.Close()
	cred, err := client.Enroll(ctx)
	if err != nil {
		return p, fmt.Errorf("enroll the first tenant: %w", err)
	}
	p.AppID, p.APIKey = cred.AppID, storedAKey{cred.APIKey}
	return p, writePrivate(path, p)
}

// writeDevProfile puts p into the user's profiles and returns its name and a
// command that uses it.
func (a *app) writeDevProfile(p profile) (name, next string, err error) {
	name = cmp.Or(a.profile, devProfile)
	path, err := a.putDevProfile(name, p)
	if err != nil {
		return "", "", err
	}
	c, err := loadConfig(path)
	if err != nil {
		return "", "", err
	}
	next = program()
	if c.choose() != name {
		next += " --profile " + name
	}
	return name, next + " key create", nil
}

// putDevProfile writes a profile and returns in which file. One of somebody else is
// kept; that named dev, and dev-1 and so on, are ours.
func (a *app) putDevProfile(name string, p profile) (string, error) {
	path, err := a.configPath()
	if err != nil {
		return "", err
	}
	c, err := loadConfig(path)
	if err != nil {
		return "", err
	}
	ours := name == devProfile || ofDevNode(name)
	old := c.Profiles[name]
	switch {
	case old.AppID != "" && old.AppID == p.AppID:
		p.APIKey = old.APIKey // it may have been rotated
	case !ours && old.AppID != "":
		return "", fmt.Errorf("profile %q has other credentials already", name)
	}
	return path, saveProfile(path, name, p)
}

// program returns how to run this program from a shell in the same directory.
func program() string {
	self, err := os.Executable()
	if err != nil {
		return "ehsm"
	}
	if found, err := exec.LookPath("ehsm"); err == nil {
		if a, errA := os.Stat(found); errA == nil {
			if b, errB := os.Stat(self); errB == nil && os.SameFile(a, b) {
				return "ehsm"
			}
		}
	}
	if strings.Contains(self, string(filepath.Separator)+"go-build") {
		return "go run ./cmd/ehsm"
	}
	return shellWord(self)
}

// shellWord returns a file name as one types it in a shell.
func shellWord(name string) string {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("'\"\\$`&|;<>()*?[]#~!", r) }) {
		return quote(name)
	}
	return name
}
