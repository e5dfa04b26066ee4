package provision

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/admission"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

const (
	maxChain    = 4096 // manifests of a domain
	maxAdmitted = 4096 // machines that are remembered
)

// A Domain is what a program knows of its domain: the verified manifests, and the
// time. It is the channel.Policy of all its channels, and safe for concurrent use.
type Domain struct {
	clock func() time.Time

	mu       sync.Mutex
	files    [][]byte          // the genesis and what follows
	states   []*manifest.State // of each file
	terms    terms             // of the last state
	last     time.Time         // no earlier time is the present
	floor    time.Time         // latest date of a signed object
	since    time.Time         // when the last manifest was taken
	admitted map[[16]byte]bool // machines, by PPID
	changed  chan struct{}     // closed when there is a newer manifest
}

// terms are what a manifest says of peers.
type terms struct {
	roots   []*x509.Certificate
	accepts map[channel.Role]*validate.Policy
	guests  map[channel.Role]*admission.Guests
}

// OpenDomain verifies the manifests of a domain, the genesis first. want is the
// id that it must have; zero: any. clock is the host's. Errors: ErrDomain, and
// those of packages manifest and admission.
func OpenDomain(want genesis.ID, files [][]byte, clock func() time.Time) (*Domain, error) {
	if len(files) == 0 || len(files) > maxChain { // check: chain-length
		return nil, fmt.Errorf("%w: %d manifests, want 1 to %d", ErrMessage, len(files), maxChain)
	}
	first, err := manifest.Open(files[0])
	if err != nil {
		return nil, err
	}
	if want != (genesis.ID{}) && first.Domain != want { // check: domain-pinned
		return nil, fmt.Errorf("%w: it is %s, wanted is %s", ErrDomain, first.Domain, want)
	}
	d := &Domain{clock: clock, admitted: map[[16]byte]bool{}, changed: make(chan struct{})}
	if err := d.take(files[:1], []*manifest.State{first}); err != nil {
		return nil, err
	}
	_, err = d.Add(files[1:])
	return d, err
}

// take makes a verified chain the domain's. The caller must hold d.mu if others
// have d.
func (d *Domain) take(files [][]byte, states []*manifest.State) error {
	state := states[len(states)-1]
	t := terms{accepts: map[channel.Role]*validate.Policy{}, guests: map[channel.Role]*admission.Guests{}}
	var err error
	if t.roots, err = admission.Roots(&state.Settings); err != nil {
		return err
	}
	for _, r := range []channel.Role{channel.Core, channel.DKeyCache, channel.DKeyServer} {
		p, err := admission.Policy(&state.Settings, string(r))
		if err != nil && !errors.Is(err, admission.ErrNobody) {
			return err
		}
		if err == nil {
			t.accepts[r], t.guests[r] = p, admission.GuestsOf(&state.Settings, string(r))
		}
	}
	d.files, d.states, d.terms, d.since = files, states, t, d.clock()
	d.raise(state.Date)
	close(d.changed)
	d.changed = make(chan struct{})
	return nil
}

// Add verifies manifests, each of which follows the one before it, and the first
// one any that d has. If the last is higher than d's, they take the place of what
// follows there, and Add reports true. Errors: those of manifest.State.Next.
func (d *Domain) Add(files [][]byte) (bool, error) {
	if len(files) == 0 {
		return false, nil
	}
	now := d.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	files = d.unknown(files)
	if len(files) == 0 {
		return false, nil
	}
	at, err := d.before(files[0])
	if err != nil {
		return false, err
	}
	chain, states := append([][]byte(nil), d.files[:at+1]...), append([]*manifest.State(nil), d.states[:at+1]...)
	for _, f := range files {
		if len(f) > maxManifest || len(chain) >= maxChain { // check: manifest-limits
			return false, fmt.Errorf("%w: manifest of %d bytes after %d others", ErrMessage, len(f), len(chain))
		}
		next, err := states[len(states)-1].Next(f, now)
		if err != nil {
			return false, err
		}
		chain, states = append(chain, bytes.Clone(f)), append(states, next)
	}
	if states[len(states)-1].Version <= d.state().Version { // check: manifest-higher
		return false, nil
	}
	return true, d.take(chain, states)
}

// unknown drops those files at the start that d has.
func (d *Domain) unknown(files [][]byte) [][]byte {
	for len(files) > 0 && containsFile(d.files, files[0]) {
		files = files[1:]
	}
	return files
}

func containsFile(files [][]byte, f []byte) bool {
	for _, have := range files {
		if bytes.Equal(have, f) {
			return true
		}
	}
	return false
}

// before finds the manifest that a file says it follows.
func (d *Domain) before(file []byte) (int, error) {
	m, err := manifest.Parse(file)
	if err != nil {
		return 0, err
	}
	for i := len(d.states) - 1; i >= 0; i-- {
		if d.states[i].Hash == m.Statement.Previous {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%w: version %d follows none that is known", manifest.ErrPrevious, m.Statement.Version)
}

func (d *Domain) state() *manifest.State { return d.states[len(d.states)-1] }

// State returns what the newest manifest says.
func (d *Domain) State() *manifest.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state()
}

// taken is when the newest manifest was taken, by the host's clock.
func (d *Domain) taken() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.since
}

// Changed returns a channel that is closed when there is a newer manifest than
// now.
func (d *Domain) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

// After returns the manifests of versions above one, in order. They must not be
// written to.
func (d *Domain) After(version uint64) [][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, s := range d.states {
		if s.Version > version {
			return d.files[i:]
		}
	}
	return nil
}

// Raise takes note of the date of a verified signed object: it is not earlier now.
func (d *Domain) Raise(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.raise(t)
}

func (d *Domain) raise(t time.Time) {
	if t.After(d.floor) {
		d.floor = t
	}
	if t.After(d.last) {
		d.last = t
	}
}

// Floor is the latest date of the signed objects that Raise was told of.
func (d *Domain) Floor() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.floor
}

// Now implements channel.Policy: the host's clock, but never before Floor nor
// before a time it has returned.
func (d *Domain) Now() time.Time {
	now := d.clock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Before(d.last) { // check: time-backwards
		return d.last
	}
	d.last = now
	return now
}

// Roots implements channel.Policy.
func (d *Domain) Roots() []*x509.Certificate {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.terms.roots
}

// Accepts implements channel.Policy.
func (d *Domain) Accepts(r channel.Role) *validate.Policy {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.terms.accepts[r]
}

// Guests implements channel.GuestPolicy.
func (d *Domain) Guests(r channel.Role) *admission.Guests {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.terms.guests[r]
}

// Admitted implements channel.Policy: machines that this process has accepted
// without a grace period.
func (d *Domain) Admitted(p verify.Platform) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.admitted[p.PPID]
}

// ListedSince implements channel.Lister, by the dates of manifests. The host writes
// none of them, and does not gain by withholding one.
func (d *Domain) ListedSince(p verify.Platform) (since time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := len(d.states) - 1; i >= 0; i-- {
		if !lists(d.states[i], attest.Machine{PPID: p.PPID, Serial: p.Serial}) {
			return since
		}
		since = d.states[i].Date
	}
	return since
}

// lists says whether a manifest names a machine.
func lists(s *manifest.State, m attest.Machine) bool {
	for _, p := range s.Settings.Platforms {
		switch {
		case p.PPID != manifest.PPID{}:
			if p.PPID == m.PPID {
				return true
			}
		case p.Serial != "":
			if p.Serial == m.Serial {
				return true
			}
		case p.Chip != manifest.ChipID{} && p.Chip == m.Chip:
			return true
		}
	}
	return false
}

// Manifest implements channel.Policy.
func (d *Domain) Manifest() uint64 { return d.State().Version }

// remember takes note of an attested peer: of its machine, and of the date of its
// collateral.
func (d *Domain) remember(p channel.Peer) {
	if p.Quote == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.raise(p.Quote.LatestIssue)
	if p.Decision.TCBGraceUntil.IsZero() && p.Decision.CollateralGraceUntil.IsZero() && len(d.admitted) < maxAdmitted {
		d.admitted[p.Quote.Platform.PPID] = true
	}
}

// admits says whether the newest manifest still has a program in a role, and the
// machine, if it is known. What else its evidence must be is for attestation.
// Errors: ErrRemoved.
func (d *Domain) admits(r channel.Role, id tee.Identity, machine *attest.Machine) error {
	p := d.Accepts(r)
	if p == nil {
		return fmt.Errorf("%w: it has nobody in the role %s", ErrRemoved, r)
	}
	if err := admitsProgram(p, d.Guests(r), id); err != nil { // check: program-admitted
		return fmt.Errorf("%w: %w", ErrRemoved, err)
	}
	if machine == nil || p.AnyPlatform {
		return nil
	}
	if !lists(d.State(), *machine) { // check: machine-admitted
		return fmt.Errorf("%w: %v", ErrRemoved, machine)
	}
	return nil
}

// admitsProgram says whether a program is one of a role: by its guest, or as an
// enclave.
func admitsProgram(p *validate.Policy, guests *admission.Guests, id tee.Identity) error {
	if !id.Debug && id.Signer == [32]byte{} && guests.Has(id.Measurement) { // no enclave is without a signer
		return nil
	}
	body := quote.Report{MREnclave: id.Measurement, MRSigner: id.Signer, ISVProdID: id.Product, ISVSVN: id.SVN}
	if id.Debug {
		body.Attributes.Flags = quote.FlagDebug
	}
	_, err := p.CheckEnclave(&body)
	return err
}

// Each calls f with each manifest and its version, in order, until f fails. The
// file must not be written to.
func (d *Domain) Each(f func(version uint64, file []byte) error) error {
	d.mu.Lock()
	files, states := d.files, d.states
	d.mu.Unlock()
	for i, s := range states {
		if err := f(s.Version, files[i]); err != nil {
			return err
		}
	}
	return nil
}
