package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/launch"
	"github.com/ehsm-kms/ehsm/internal/trusted/provision"
	"github.com/ehsm-kms/ehsm/internal/trusted/recovery"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
)

// Files of a restoration, in the directory beside the domain's.
const (
	restoreSuffix  = ".restore"  // of the directory
	recoverySuffix = ".recovery" // of that for a new recovery key
	requestFile    = "request"
	answerSuffix   = ".answer"

	maxAnswer = 4 << 10 // bytes
)

// errExists says that there is a domain where one is to be restored.
var errExists = errors.New("it exists already, and nothing is restored over it")

// restore has custodians restore the domain of a backup.
func restore(ctx context.Context, backup string, manifests []string, getenv func(string) string, stderr io.Writer, confined bool) error {
	settings, p, cage, err := launch.Begin(ctx, program, config.LoadDKeyServer, launch.Process{Getenv: getenv, Stderr: stderr, Confined: confined})
	if err != nil {
		return err
	}
	if _, err := os.Lstat(settings.Domain); !errors.Is(err, fs.ErrNotExist) { // check: restore-exists
		return fmt.Errorf("restore to %s: %w", settings.Domain, errors.Join(errExists, err))
	}
	o, err := restoreOptions(ctx, settings, p, backup, manifests)
	if err != nil {
		return err
	}
	s, err := recovery.Begin(ctx, o)
	if errors.Is(err, recovery.ErrMachine) {
		err = fmt.Errorf("%w; operators admit it with a manifest that follows the backup's, which is given after the backup", err)
	}
	if err != nil {
		return err
	}
	if err := cage.Shut(stderr); err != nil {
		return err
	}
	if o.InMemory {
		return publish(s, settings.Domain, stderr)
	}
	c := newCollector(settings.Domain+restoreSuffix, s, stderr)
	if err := c.collect(ctx); err != nil {
		return fmt.Errorf("given up, and nothing was restored: %w", err)
	}
	return c.finish(settings)
}

// publish makes the domain's directory where only custodians open the escrow.
func publish(s *recovery.Session, dir string, stderr io.Writer) error {
	if err := s.Publish(dir); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "ehsm-dkeyserver: made %s of the backup; this platform has no seal key, so that custodians give ehsm-dkeyserver serve the DomainKey, and again after each start\n", dir)
	return nil
}

func restoreOptions(ctx context.Context, settings config.DKeyServer, p tee.Platform, backup string, manifests []string) (o recovery.Options, err error) {
	attester, ok := p.(tee.Attester)
	if !ok {
		return o, fmt.Errorf("%w: platform %s makes no quotes", tee.ErrNoPlatform, p.Name())
	}
	o = recovery.Options{Attester: attester, Domain: genesis.ID(settings.DomainID), Now: time.Now(), InMemory: !tee.Seals(p)}
	if o.Platform, err = sealing(settings, p); err != nil {
		return o, err
	}
	if o.Collateral, err = provision.CollateralFile(settings.Collateral)(ctx); err != nil {
		return o, err
	}
	if o.Backup, err = readFile(backup); err != nil {
		return o, fmt.Errorf("read the backup: %w", err)
	}
	for _, path := range manifests {
		b, err := readFile(path)
		if err != nil {
			return o, fmt.Errorf("read a manifest: %w", err)
		}
		o.Manifests = append(o.Manifests, b)
	}
	return o, nil
}

// A collector takes the answers of custodians from a directory.
type collector struct {
	dir     string
	session *recovery.Session
	seen    map[[32]byte]bool // SHA-256 of answers that were looked at
	stderr  io.Writer
	told    func(have []string) // unless nil, whenever there is another share
}

// newCollector returns a collector for the directory that is named after that of
// the domain.
func newCollector(dir string, s *recovery.Session, stderr io.Writer) *collector {
	return &collector{dir: filepath.Clean(dir), session: s, seen: map[[32]byte]bool{}, stderr: stderr}
}

// clear removes the directory, which is worth nothing any more.
func (c *collector) clear() error { return os.RemoveAll(c.dir) }

// collect writes the request and returns when there are enough shares. Errors:
// recovery.ErrTooFew, with that of ctx.
func (c *collector) collect(ctx context.Context) error {
	if err := os.Mkdir(c.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	request := filepath.Join(c.dir, requestFile)
	if err := domainkey.WriteFile(c.dir, requestFile, c.session.Request()); err != nil {
		return err
	}
	state, e := c.session.Verdict().State(), c.session.Escrow()
	c.say("restores domain %s, DomainKey versions %v as of %s, under manifest %d", state.Domain, e.Versions, e.Date.Format(time.RFC3339), state.Version)
	c.say("custodians run ehsm domain custodian release for %s; their answers go to %s", request, c.dir)
	c.progress()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		c.look()
		if have, need := c.session.Progress(); len(have) >= need {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			have, need := c.session.Progress()
			return fmt.Errorf("%w: %d of the %d that it takes: %w", recovery.ErrTooFew, len(have), need, context.Cause(ctx))
		}
	}
}

func (c *collector) say(format string, v ...any) {
	fmt.Fprintf(c.stderr, "ehsm-dkeyserver: "+format+"\n", v...)
}

func (c *collector) progress() {
	have, need := c.session.Progress()
	if c.told != nil {
		c.told(have)
	}
	if len(have) == 0 {
		c.say("waits for the shares of %d custodians", need)
		return
	}
	c.say("has %d of %d shares: %s", len(have), need, strings.Join(have, ", "))
}

// look takes the answers that are there and were not looked at yet.
func (c *collector) look() {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		c.say("answers are not read: %v", err)
		return
	}
	for _, e := range entries {
		if have, need := c.session.Progress(); len(have) >= need || !strings.HasSuffix(e.Name(), answerSuffix) {
			continue
		}
		b, err := readAnswer(filepath.Join(c.dir, e.Name()))
		if err != nil {
			continue // and perhaps readable at the next look
		}
		if sum := sha256.Sum256(append([]byte(e.Name()+"\x00"), b...)); !c.seen[sum] {
			c.seen[sum] = true
			c.take(e.Name(), b)
		}
	}
}

func readAnswer(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxAnswer))
}

func (c *collector) take(name string, b []byte) {
	if err := c.session.Add(b); err != nil {
		c.say("%s is refused: %v", name, err)
		return
	}
	c.progress()
}

// finish opens the escrow and writes the domain's directory.
func (c *collector) finish(settings config.DKeyServer) error {
	home, err := program.OpenHome(settings.Platform, c.stderr)
	if err != nil {
		return err
	}
	defer home.Close()
	keys, err := c.session.Keys(home)
	if err != nil {
		return err
	}
	if err := c.session.Write(settings.Domain, keys, time.Now()); err != nil {
		return err
	}
	c.say("restored the DomainKey, versions %v, to %s; ehsm-dkeyserver serve next", c.session.Escrow().Versions, settings.Domain)
	if err := c.clear(); err != nil {
		c.say("%v", err)
	}
	return nil
}
