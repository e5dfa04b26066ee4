// Package nodes runs a whole domain of several nodes on one machine, to try it
// with: `ehsm dev --nodes 3`. Each node is a simulated machine of one fleet with
// the programs of a real one, as processes of their own, so that each can be
// killed and started again: ehsm-simtee, ehsm-dkeycache, ehsm-core and ehsm-kms;
// on the first also the root ehsm-dkeyserver, on the second a worker. They share a
// PostgreSQL.
//
// It starts programs and holds no keys, except for the operator's that its caller
// gives it. Everything is in one directory, which is enough to start the domain
// again.
package nodes

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/host/dev"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Most is how many nodes there can be.
const Most = 9

// Options say what to start, where. None may be left empty but Database.
type Options struct {
	Dir      string // directory of everything; made at first start
	Programs string // directory of the programs
	Nodes    int    // 1 to Most
	// Listen is host:port of the first node's manager. The others have the ports
	// after it; port 0 takes free ones.
	Listen string
	// Database is the URL of a PostgreSQL. Without it that of the start before is
	// used, or else a server of the domain's own, in Dir.
	Database string
	// People are asked for when the domain is made, and when the start before was
	// ended while it was.
	People func() (People, error)
	// Say takes a line for people about what has happened.
	Say func(line string)
	// Environ is the environment of the programs, beside their settings.
	Environ []string
}

// People decide in a domain: here all of them are who starts it.
type People struct {
	Operator      manifest.Person
	Administrator manifest.Person
	Custodians    []manifest.Person // of whom two restore the DomainKey
	Key           crypto.Signer     // the operator's
}

// A Site is a domain that runs.
type Site struct {
	Domain      string // id, hex
	Manifest    uint64 // version of the manifest that was in force at the start
	First       bool   // the domain was made by this start
	Fingerprint string // SHA-256 of all managers' certificate, hex
	Database    string // for people: which PostgreSQL it is
	Nodes       []*Node

	o        Options
	spawner  *spawner
	postgres *part
	lock     *os.File
	settings settings
	stop     context.CancelFunc
	beside   sync.WaitGroup
}

// settings are what the programs of all nodes are told.
type settings struct {
	database string   // URL
	servers  []string // host:port of the dkeyservers, the root first
}

// A Node is a machine of the domain.
type Node struct {
	Name     string // in the manifest
	URL      string // of its manager
	Dir      string
	Admitted bool // by the manifest that was in force at the start
	Number   manifest.PPID

	parts []*part // in the order in which they start
}

// A Program is a process of a node.
type Program struct {
	Name string // such as ehsm-core
	PID  int    // 0: it has ended
}

// Door is the socket at which the root dkeyserver answers its operators.
func (s *Site) Door() string { return filepath.Join(s.Nodes[0].path(domainDir), config.DoorFile) }

// Programs lists what the node runs.
func (n *Node) Programs() []Program {
	all := make([]Program, len(n.parts))
	for i, p := range n.parts {
		all[i] = Program{p.program, p.pid()}
	}
	return all
}

// ErrInterrupted is returned where the context ends before all nodes serve.
var ErrInterrupted = errors.New("interrupted before all nodes served; the next start goes on")

// Start makes the domain, if there is none, starts all programs, and returns when
// every node that the domain admits serves. They run until Close is called.
// Errors: ErrPrograms, ErrDirectory, ErrPorts, ErrPostgres,
// ErrInterrupted, dev.ErrLost.
func Start(ctx context.Context, o Options) (*Site, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	o.Dir = dir
	if err := checkPrograms(o.Programs); err != nil {
		return nil, err
	}
	if err := checkDirectory(o.Dir, o.Nodes); err != nil {
		return nil, err
	}
	s := &Site{o: o}
	if s.lock, err = lock(o.Dir); err != nil {
		return nil, err
	}
	s.spawner = newSpawner()
	if err := s.start(ctx); err != nil {
		if ctx.Err() != nil {
			err = ErrInterrupted // and not what that has led to
		}
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// place finds addresses for all that listens.
func (s *Site) place() error {
	addresses, err := managers(s.o.Listen, s.o.Nodes)
	if err != nil {
		return err
	}
	for i, address := range addresses {
		s.Nodes = append(s.Nodes, &Node{Name: fmt.Sprint("node-", i+1), URL: "https://" + address, Dir: filepath.Join(s.o.Dir, fmt.Sprint("node", i+1))})
	}
	s.settings.servers, err = keyServers(s.o.Listen, min(s.o.Nodes, 2))
	return err
}

func (s *Site) start(ctx context.Context) error {
	if err := s.place(); err != nil {
		return err
	}
	if err := s.findDatabase(); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(s.o.Listen)
	if err != nil {
		return err
	}
	if s.Fingerprint, err = dev.Certify(filepath.Join(s.o.Dir, dev.TLSDir), &net.TCPAddr{IP: net.ParseIP(host)}); err != nil {
		return err
	}
	if err := copyPrograms(s.o.Programs, s.bin(), filepath.Join(s.o.Dir, signerFile)); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if err := s.startMachine(ctx, n); err != nil {
			return err
		}
	}
	if err := s.openDomain(ctx); err != nil {
		return err
	}
	if err := s.startPostgres(ctx); err != nil {
		return err
	}
	for i, n := range s.Nodes {
		if err := s.startNode(ctx, i, n); err != nil {
			return err
		}
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.beside.Go(func() { s.refresh(background) })
	if err := s.await(ctx); err != nil {
		return err
	}
	return s.keepDatabase()
}

// Close ends all programs in order, each after those that need it.
func (s *Site) Close() error {
	if s.stop != nil {
		s.stop()
	}
	s.beside.Wait()
	var err error
	for _, name := range []string{programKMS, programCore, programCache, programServer, programTEE} {
		var same []*part
		for _, n := range s.Nodes {
			for _, p := range n.parts {
				if p.program == name {
					same = append(same, p)
				}
			}
		}
		err = errors.Join(err, endAll(same))
	}
	if s.postgres != nil {
		err = errors.Join(err, s.postgres.end())
	}
	s.spawner.close()
	return errors.Join(err, unlock(s.lock))
}

// endAll ends parts at the same time.
func endAll(parts []*part) error {
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, p := range parts {
		wg.Go(func() { errs[i] = p.end() })
	}
	wg.Wait()
	return errors.Join(errs...)
}
