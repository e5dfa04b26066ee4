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
)

// devCredentials is the file of a data directory with the profile of its first
// tenant, so that another start with the same data finds the same keys.
const devCredentials = "client.yaml"

type devFlags struct {
	listen, data string
	http         bool
	noProfile    bool
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
ready it can write to the data directory only, and start no programs.`,
		Example: `  ehsm dev
  ehsm dev --data /tmp/kms --listen 127.0.0.1:0 --profile try`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.dev(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:9000", "`host:port` to listen on; port 0 takes a free one")
	flags.StringVar(&f.data, "data", "", "`directory` of all data; $XDG_STATE_HOME/ehsm or ~/.local/state/ehsm without it")
	flags.BoolVar(&f.http, "http", false, "plain http, on loopback addresses only")
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
	if f.data == "" {
		state, err := a.userDir("XDG_STATE_HOME", filepath.Join(".local", "state"))
		if err != nil {
			return withHint(err, "name the data directory with --data")
		}
		f.data = filepath.Join(state, "ehsm")
	}
	a.warn("simulated TEE: keys are protected by file permissions only; do not put real keys here")
	config.TuneCollector(ctx, a.getenv, 400)
	log := slog.New(slog.NewTextHandler(a.stderr, nil))
	server, err := dev.Start(ctx, dev.Options{Dir: f.data, Listen: f.listen, PlainHTTP: f.http, Log: log, Locked: true})
	if err != nil {
		return err
	}
	if err := a.ready(ctx, f, server); err != nil {
		return errors.Join(err, server.Close())
	}
	return server.Wait()
}

// ready enrolls the first tenant if need be and says how to go on.
func (a *app) ready(ctx context.Context, f devFlags, server *dev.Server) error {
	s := started{URL: server.URL(), Fingerprint: server.Fingerprint(), Data: f.data, Domain: hex.EncodeToString(server.Info.Domain[:])}
	if !f.noProfile {
		p, err := devTenant(ctx, f.data, server)
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

// devTenant returns the profile of the tenant that a data directory has, as the
// server is reached now.
func devTenant(ctx context.Context, data string, server *dev.Server) (profile, error) {
	path := filepath.Join(data, devCredentials)
	var p profile
	if !server.First {
		b, err := readPrivate(path)
		if err == nil {
			err = decodeYAML(path, b, &p)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return p, fmt.Errorf("read credentials: %w", err)
		}
	}
	p.URL, p.Fingerprint, p.Insecure = server.URL(), server.Fingerprint(), server.Fingerprint() == ""
	p.Domain = hex.EncodeToString(server.Info.Domain[:])
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
	path, err := a.configPath()
	if err != nil {
		return "", "", err
	}
	name = cmp.Or(a.profile, devProfile)
	c, err := loadConfig(path)
	if err != nil {
		return "", "", err
	}
	if old := c.Profiles[name]; name != devProfile && old.AppID != "" && old.AppID != p.AppID {
		return "", "", fmt.Errorf("profile %q has other credentials already", name)
	}
	if err := saveProfile(path, name, p); err != nil {
		return "", "", err
	}
	if c, err = loadConfig(path); err != nil {
		return "", "", err
	}
	next = program()
	if c.choose() != name {
		next += " --profile " + name
	}
	return name, next + " key create", nil
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
