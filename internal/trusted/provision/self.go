package provision

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// A Self is the running program, which the manifest may admit or not. It is safe
// for concurrent use.
type Self struct {
	instance overview.ID // from the start of the program to its end
	role     channel.Role
	platform tee.Platform
	attester tee.Attester

	rewrap atomic.Pointer[overview.Rewrap] // of a core

	mu      sync.Mutex
	machine *attest.Machine
}

// NewSelf returns the program of a role on its platform. attester makes its quotes,
// which name the machine; nil: the machine is not looked at.
func NewSelf(r channel.Role, p tee.Platform, attester tee.Attester) *Self {
	s := &Self{role: r, platform: p, attester: attester}
	rand.Read(s.instance[:]) // never fails
	return s
}

// admitted says whether the newest manifest admits this program and this machine.
// The host decides what is shown of the machine, as it does of manifests: it is for
// honest hosts, whose machine is taken out of a domain. Peers judge by themselves.
// Errors: ErrRemoved, and those of the platform.
func (s *Self) admitted(ctx context.Context, d *Domain) error {
	machine, err := s.own(ctx, d)
	if err != nil {
		return err
	}
	return d.admits(s.role, s.platform.Identity(), machine)
}

// own asks the platform once for evidence, which goes nowhere, and returns what it
// says of the machine.
func (s *Self) own(ctx context.Context, d *Domain) (*attest.Machine, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machine != nil || s.attester == nil {
		return s.machine, nil
	}
	e, err := s.attester.Evidence(ctx, attest.ReportData(attest.UseChannel, d.State().Domain))
	if err != nil {
		return nil, fmt.Errorf("look at the own machine: %w", err)
	}
	machine, err := machineIn(e)
	if err != nil {
		return nil, fmt.Errorf("look at the own machine: %w", err)
	}
	s.machine = &machine
	return s.machine, nil
}

// Rewrapped has the program tell operators how far the records of its store are, by
// the word of its manager.
func (s *Self) Rewrapped(r overview.Rewrap) { s.rewrap.Store(&r) }

// machineIn reads the machine in evidence, which is not verified. Errors: those of
// the parsers.
func machineIn(e attest.Evidence) (attest.Machine, error) {
	if e.Kind != attest.SGXQuote3 {
		return guestMachine(e)
	}
	q, err := quote.Parse(e.Quote)
	if err != nil {
		return attest.Machine{}, err
	}
	return machineOfChain(q.Certificates())
}

// machineOfChain reads the PCK certificate of a chain, leaf first.
func machineOfChain(chain [][]byte, err error) (attest.Machine, error) {
	if err != nil {
		return attest.Machine{}, err
	}
	pck, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return attest.Machine{}, err
	}
	p, err := verify.PlatformOf(pck)
	return attest.Machine{PPID: p.PPID, Serial: p.Serial}, err
}
