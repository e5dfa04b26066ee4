package nodes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/dev"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
)

// refreshEvery is how often the machines' collateral is written anew. It is good for
// 30 days.
const refreshEvery = 24 * time.Hour

// What programs print when they run.
var (
	teeReady    = regexp.MustCompile(`^ehsm-simtee: serves `)
	serverReady = regexp.MustCompile(`^ehsm-dkeyserver: serves as `)
)

func (s *Site) bin() string { return filepath.Join(s.o.Dir, binDir) }

func (n *Node) path(name string) string { return filepath.Join(n.Dir, name) }

// add makes a part of a node, which is not started.
func (s *Site) add(n *Node, program, dir string, args []string, settings ...string) *part {
	p := &part{
		name: n.Name + " " + program, program: program, path: filepath.Join(dir, program), args: args, dir: n.Dir,
		env: slices.Concat(s.o.Environ, settings), signal: os.Interrupt, spawner: s.spawner, say: s.o.Say,
	}
	n.parts = append(n.parts, p)
	return p
}

// startMachine starts a node's machine, which it makes if there is none.
func (s *Site) startMachine(ctx context.Context, n *Node) error {
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return err
	}
	logs, err := filepath.Glob(n.path("*.log"))
	if err != nil {
		return err
	}
	for _, log := range logs {
		if err := os.Remove(log); err != nil {
			return err
		}
	}
	if err := s.issue(n); err != nil {
		return err
	}
	p := s.add(n, programTEE, s.o.Programs, []string{"serve", "--dir", n.path(machineDir), "--fleet", filepath.Join(s.o.Dir, fleetDir), "--socket", n.path(teeSocket)})
	p.ready = teeReady
	return p.start(ctx)
}

// processor is the node's machine, made if there is none.
func (s *Site) processor(n *Node) (*sim.Processor, error) {
	p, err := sim.OpenProcessor(n.path(machineDir), sim.Options{Fleet: filepath.Join(s.o.Dir, fleetDir)})
	if err != nil {
		return nil, fmt.Errorf("machine of %s: %w", n.Name, err)
	}
	return p, nil
}

// issue writes what the fleet says of a machine.
func (s *Site) issue(n *Node) error {
	p, err := s.processor(n)
	if err != nil {
		return err
	}
	terms := p.Terms(time.Now())
	n.Number = terms.Platform.PPID
	c, err := p.Issue(terms)
	if err != nil {
		return fmt.Errorf("collateral of %s: %w", n.Name, err)
	}
	return replace(n.path(collateralFile), c.Append(nil), 0o600)
}

// refresh keeps the machines' collateral from becoming old.
func (s *Site) refresh(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, n := range s.Nodes {
			if err := s.issue(n); err != nil {
				s.o.Say(err.Error())
			}
		}
	}
}

// serverSettings are those of the dkeyserver of node i, of those that have one.
func (s *Site) serverSettings(i int) []string {
	n := s.Nodes[i]
	env := []string{
		"EHSM_DKEYSERVER_LISTEN=" + s.settings.servers[i], "EHSM_DKEYSERVER_DOMAIN=" + n.path(domainDir),
		"EHSM_DKEYSERVER_SIM=" + n.path(teeSocket), "EHSM_DKEYSERVER_COLLATERAL=" + n.path(collateralFile), "EHSM_DKEYSERVER_HEARTBEAT=1s",
	}
	if i > 0 {
		env = append(env, "EHSM_DKEYSERVER_ROLE=worker", "EHSM_DKEYSERVER_PEERS="+s.settings.servers[0], "EHSM_DKEYSERVER_DOMAIN_ID="+s.Domain)
	}
	return env
}

// startNode starts all of node i but its machine. None waits for another here: each
// program waits for those that it needs by itself.
func (s *Site) startNode(ctx context.Context, i int, n *Node) error {
	tls := filepath.Join(s.o.Dir, dev.TLSDir)
	var parts []*part
	servers := slices.Clone(s.settings.servers)
	if i < len(servers) {
		p := s.add(n, programServer, s.bin(), []string{"serve"}, s.serverSettings(i)...)
		p.ready = serverReady
		parts = append(parts, p)
		servers[0], servers[i] = servers[i], servers[0] // the machine's own first
	}
	cache, core := "unix:"+n.path(cacheSocket), "unix:"+n.path(coreSocket)
	parts = append(parts, s.add(n, programCache, s.bin(), nil,
		"EHSM_DKEYCACHE_LISTEN="+cache, "EHSM_DKEYCACHE_SERVERS="+strings.Join(servers, ","), "EHSM_DKEYCACHE_DOMAIN_ID="+s.Domain,
		"EHSM_DKEYCACHE_SIM="+n.path(teeSocket), "EHSM_DKEYCACHE_COLLATERAL="+n.path(collateralFile), "EHSM_DKEYCACHE_HEARTBEAT=1s"),
		s.add(n, programCore, s.bin(), nil,
			"EHSM_CORE_LISTEN="+core, "EHSM_CORE_SIM="+n.path(teeSocket), "EHSM_CORE_DKEYCACHE="+cache, "EHSM_CORE_DOMAIN_ID="+s.Domain),
		s.add(n, programKMS, s.o.Programs, nil,
			"EHSM_KMS_LISTEN="+strings.TrimPrefix(n.URL, "https://"), "EHSM_KMS_CORE="+core, "EHSM_KMS_DATABASE="+s.settings.database, "EHSM_KMS_AUDIT="+n.path(auditDir),
			"EHSM_KMS_TLS_CERT="+filepath.Join(tls, dev.CertFile), "EHSM_KMS_TLS_KEY="+filepath.Join(tls, dev.KeyFile),
			"EHSM_KMS_COLLATERAL=bundle", "EHSM_KMS_COLLATERAL_BUNDLE="+n.path(collateralFile), "EHSM_KMS_COLLATERAL_DIR="+n.path(ownDir)))
	for _, p := range parts {
		if err := p.start(ctx); err != nil {
			return err
		}
	}
	return nil
}
