package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"

	"github.com/ehsm-kms/ehsm/internal/host/dev/nodes"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Keys of people in the data directory of several nodes, and the names that the
// people have.
const (
	devOperator      = "operator"
	devAdministrator = "administrator"
	devCustodian     = "custodian" // with a number
	devCustodians    = 3
)

// devNodes runs a domain of several nodes until ctx ends.
func (a *app) devNodes(ctx context.Context, f devFlags) error {
	programs, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	revive := make(chan os.Signal, 1)
	signal.Notify(revive, syscall.SIGUSR1)
	defer signal.Stop(revive)
	var mu sync.Mutex // programs end at any time
	site, err := nodes.Start(ctx, nodes.Options{
		Dir: f.data, Programs: filepath.Dir(programs), Nodes: f.nodes, Listen: f.listen, Database: f.database,
		People: func() (nodes.People, error) { return devPeople(f.data) },
		Say: func(line string) {
			mu.Lock()
			defer mu.Unlock()
			a.warn("%s", line)
		},
		Environ: withoutSettings(os.Environ()),
	})
	if err != nil {
		return nodesHint(err)
	}
	if err := a.readyNodes(ctx, f, site); err != nil {
		return errors.Join(err, site.Close())
	}
	for {
		select {
		case <-ctx.Done():
			a.warn("ends all programs; the next start finds the same domain")
			return site.Close()
		case <-revive:
			if err := site.Revive(ctx); err != nil && ctx.Err() == nil {
				a.warn("%v", err)
			}
		}
	}
}

// nodesHint adds what to do about a domain of nodes that does not start.
func nodesHint(err error) error {
	switch {
	case errors.Is(err, nodes.ErrPrograms):
		return withHint(err, "make build, then bin/ehsm dev --nodes 3: go run has no programs beside it")
	case errors.Is(err, nodes.ErrPorts):
		return withHint(err, "end what listens there, or choose other ports: --listen 127.0.0.1:9100")
	case errors.Is(err, nodes.ErrPostgres):
		return withHint(err, "apt-get install postgresql, or name a server: --database postgres://USER@HOST/DATABASE")
	case errors.Is(err, nodes.ErrDirectory):
		return withHint(err, "choose another directory with --data")
	}
	return err
}

// withoutSettings leaves out of an environment what would be settings of programs.
func withoutSettings(environ []string) []string {
	return slices.DeleteFunc(environ, func(v string) bool { return strings.HasPrefix(v, "EHSM_") })
}

// devPeople are the people of a data directory, whose keys are made if they are not
// there.
func devPeople(dir string) (nodes.People, error) {
	operator, err := devKey(dir, devOperator, manifest.Operator)
	if err != nil {
		return nodes.People{}, err
	}
	administrator, err := devKey(dir, devAdministrator, manifest.Administrator)
	if err != nil {
		return nodes.People{}, err
	}
	p := nodes.People{Operator: operator.person, Administrator: administrator.person, Key: operator.signer()}
	for i := range devCustodians {
		k, err := devKey(dir, fmt.Sprint(devCustodian, "-", i+1), manifest.Custodian)
		if err != nil {
			return nodes.People{}, err
		}
		p.Custodians = append(p.Custodians, k.person)
	}
	return p, nil
}

func devKey(dir, name string, d manifest.Duty) (*keyFile, error) {
	path := filepath.Join(dir, name+".key")
	k, err := readKeyFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if k, err = newKeyFile(d, name); err != nil {
		return nil, err
	}
	return k, errors.Join(writeNew(path, k.text(), 0o600), writeNew(path+".pub", k.public(), 0o644))
}

// startedNodes is what dev prints when all nodes are ready.
type startedNodes struct {
	Nodes       []startedNode `json:"nodes"`
	Database    string        `json:"database"`
	Fingerprint string        `json:"fingerprint"`
	Data        string        `json:"data"`
	Domain      string        `json:"domain"`
	PID         int           `json:"pid"`
	Profile     string        `json:"profile,omitempty"`
	Next        string        `json:"next,omitempty"`
}

type startedNode struct {
	Name     string         `json:"name"`
	URL      string         `json:"url"`
	Profile  string         `json:"profile,omitempty"`
	Admitted bool           `json:"admitted"`
	Programs map[string]int `json:"programs"` // process ids
}

// readyNodes enrolls the first tenant if need be, shows what runs, and says how to
// go on.
func (a *app) readyNodes(ctx context.Context, f devFlags, site *nodes.Site) error {
	s := startedNodes{Database: site.Database, Fingerprint: site.Fingerprint, Data: f.data, Domain: site.Domain, PID: os.Getpid()}
	for _, n := range site.Nodes {
		programs := map[string]int{}
		for _, p := range n.Programs() {
			programs[p.Name] = p.PID
		}
		s.Nodes = append(s.Nodes, startedNode{Name: n.Name, URL: n.URL, Admitted: n.Admitted, Programs: programs})
	}
	for _, n := range site.Nodes {
		if !n.Admitted {
			a.warn("%s is not admitted by manifest %d: its core has no keys, and it does not serve", n.Name, site.Manifest)
			a.warn("hint: %s domain admit --ppid %s --name %s --key %s --door %s", program(), n.Number, n.Name,
				shellWord(filepath.Join(f.data, devOperator+".key")), shellWord(site.Door()))
		}
	}
	if !f.noProfile {
		if err := a.profileNodes(ctx, f, site, &s); err != nil {
			return err
		}
	}
	return a.emit(s, s.text())
}

// profileNodes enrolls the first tenant if need be, and writes profiles of the domain
// and of each of its nodes.
func (a *app) profileNodes(ctx context.Context, f devFlags, site *nodes.Site, s *startedNodes) error {
	serving := slices.IndexFunc(s.Nodes, func(n startedNode) bool { return n.Admitted })
	if serving < 0 {
		return nil
	}
	p, err := devTenant(ctx, f.data, service{s.Nodes[serving].URL, s.Fingerprint, s.Domain, site.First})
	if err != nil {
		return err
	}
	if s.Profile, s.Next, err = a.writeDevProfile(p); err != nil {
		a.warn("no profile written: %v", err)
		return nil
	}
	for i := range s.Nodes {
		p.URL = s.Nodes[i].URL
		name := fmt.Sprint(s.Profile, "-", i+1)
		if _, err := a.putDevProfile(name, p); err != nil {
			a.warn("no profile written: %v", err)
			continue
		}
		s.Nodes[i].Profile = name
	}
	return nil
}

// text is a screen: what runs, where everything is, and what to try.
func (s startedNodes) text() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "eHSM-KMS is ready\n\n%s\n", s.table())
	fmt.Fprintf(&b, "  database:    %s\n  fingerprint: %s\n  data:        %s\n  domain:      %s\n", s.Database, s.Fingerprint, s.Data, s.Domain)
	if s.Profile != "" {
		each := ""
		if n := len(s.Nodes); n > 1 {
			each = fmt.Sprintf("; %s-1 to %s-%d are its nodes", s.Profile, s.Profile, n)
		}
		fmt.Fprintf(&b, "  profile:     %s%s\n  next:        %s\n", s.Profile, each, s.Next)
	}
	fmt.Fprintf(&b, "\nThen try, in another terminal:\n%s", s.ideas())
	return b.String()
}

// table has a line for each node with the process ids of its programs.
func (s startedNodes) table() string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "  node\turl\tehsm-kms\tehsm-core\tdkeycache\tdkeyserver\tsimtee")
	for i, n := range s.Nodes {
		id := func(program string) string {
			switch pid, ok := n.Programs[program]; {
			case !ok:
				return "-"
			case pid == 0:
				return "ended"
			default:
				return fmt.Sprint(pid)
			}
		}
		server := id("ehsm-dkeyserver")
		if server != "-" {
			server += map[bool]string{true: " root", false: " worker"}[i == 0]
		}
		url := n.URL
		if !n.Admitted {
			url += " not admitted"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.Name, url, id("ehsm-kms"), id("ehsm-core"), id("ehsm-dkeycache"), server, id("ehsm-simtee"))
	}
	w.Flush() // to memory
	return b.String()
}

// ideas are commands to try, with what they do.
func (s startedNodes) ideas() string {
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	idea := func(command, does string) { fmt.Fprintf(w, "  %s\t# %s\n", command, does) }
	fmt.Fprintf(w, "  D=%s; export EHSM_DKEYSERVER_DOMAIN=$D/node1/domain\n", shellWord(s.Data))
	for _, n := range slices.Backward(s.Nodes) {
		if n.Admitted && n.Profile != "" {
			idea(program()+" key list --profile "+n.Profile, "every node has all keys")
			break
		}
	}
	idea(program()+" domain status", "as its operator sees it")
	if len(s.Nodes) > 1 {
		idea(fmt.Sprintf("%s domain remove %s --key $D/%s.key", program(), s.Nodes[len(s.Nodes)-1].Name, devOperator), "its core forgets the DomainKey")
	}
	idea(fmt.Sprintf("%s domain rotate --key $D/%s.key", program(), devOperator), "a new DomainKey, while all work")
	idea("kill -9 $(cat $D/node1/dkeyserver.pid)", "the root: what runs does not need it")
	idea("kill -9 $(cat $D/node*/*.pid)", "a power failure")
	idea("kill -USR1 $(cat $D/dev.pid)", "starts again what has ended")
	w.Flush() // to memory
	return b.String()
}
