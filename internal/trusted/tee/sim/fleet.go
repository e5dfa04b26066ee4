package sim

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// ErrFleet is returned for a machine whose certificates are not of the fleet in
// the fleet's directory.
var ErrFleet = errors.New("the simulated machine belongs to another fleet")

// collateralLife is how long collateral is valid, as Intel's.
const collateralLife = 30 * 24 * time.Hour

// join reads the machine's fleet and its PCK, and makes what is not there.
func (p *Processor) join(dir string, o Options) error {
	pck := filepath.Join(dir, pckFile)
	_, err := os.Lstat(pck)
	newcomer := errors.Is(err, fs.ErrNotExist)
	if err := p.openFleet(o, newcomer); err != nil {
		return err
	}
	if newcomer {
		if err := p.certify(pck, o.Now); err != nil {
			return fmt.Errorf("make %s: %w", pck, err)
		}
	}
	b, err := readPrivate(pck, maxPEM)
	if err != nil {
		return err
	}
	if p.quoter, err = issue.ParseMachine(b); err != nil {
		return fmt.Errorf("%s: %w", pck, err)
	}
	if p.platform, err = verify.PlatformOf(p.quoter.PCK.Cert); err != nil {
		return fmt.Errorf("%s: %w", pck, err)
	}
	chain := quote.EncodeChain(p.quoter.PCK.Cert.Raw, p.fleet.PCKCA.Cert.Raw, p.fleet.Root.Cert.Raw)
	if !bytes.Equal(chain, p.quoter.Chain) || p.quoter.PCK.Cert.CheckSignatureFrom(p.fleet.PCKCA.Cert) != nil {
		return fmt.Errorf("%w: remove %s to join the fleet in %s", ErrFleet, pck, o.Fleet)
	}
	return nil
}

// openFleet reads the fleet. Only a machine without a PCK may make one: the PCK
// of a machine with a lost fleet would not verify under another.
func (p *Processor) openFleet(o Options, mayMake bool) error {
	path := filepath.Join(o.Fleet, fleetFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && mayMake {
		if err := makeFleet(path, o.Now); err != nil {
			return fmt.Errorf("make %s: %w", path, err)
		}
	}
	b, err := readPrivate(path, maxPEM)
	if err != nil {
		return err
	}
	if p.fleet, err = issue.ParseFleet(b); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func makeFleet(path string, now time.Time) error {
	f, err := issue.NewFleet(now)
	if err != nil {
		return err
	}
	b, err := f.Marshal()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return writeNew(path, b)
}

func (p *Processor) certify(path string, now time.Time) error {
	m, err := p.fleet.NewMachine(issue.NewPlatform(), now)
	if err != nil {
		return err
	}
	b, err := m.Marshal()
	if err != nil {
		return err
	}
	return writeNew(path, b)
}

// Root returns the root certificate of the processor's fleet. A verifier that
// trusts it trusts whoever reads the fleet's file.
func (p *Processor) Root() *x509.Certificate { return p.fleet.Root.Cert }

// Terms returns what the fleet says of the processor from now on for 30 days:
// all is up to date. A caller may change them and pass them to Issue.
func (p *Processor) Terms(now time.Time) issue.Terms {
	now = now.UTC().Truncate(time.Second) // what the documents can say
	return issue.Terms{Platform: p.platform, Issued: now, Next: now.Add(collateralLife)}
}

// Issue signs collateral about the processor.
func (p *Processor) Issue(t issue.Terms) (verify.Collateral, error) { return p.fleet.Collateral(t) }

// Root is that of the processor.
func (m *Machine) Root() *x509.Certificate { return m.p.Root() }

// Collateral signs collateral about the machine, and every other of its fleet:
// issued now, valid for 30 days, all up to date.
func (m *Machine) Collateral(now time.Time) (verify.Collateral, error) {
	return m.p.Issue(m.p.Terms(now))
}

// Processor returns the processor that runs the program.
func (m *Machine) Processor() *Processor { return m.p }

// Evidence implements tee.Attester: an SGX quote of version 3.
func (m *Machine) Evidence(ctx context.Context, reportData [64]byte) (attest.Evidence, error) {
	if err := ctx.Err(); err != nil {
		return attest.Evidence{}, err
	}
	q, err := m.p.quoter.Quote(m.body(reportData))
	if err != nil {
		return attest.Evidence{}, fmt.Errorf("sign a simulated quote: %w", err)
	}
	return attest.Evidence{Kind: attest.SGXQuote3, Quote: q}, nil
}
