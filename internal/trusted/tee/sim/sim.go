// Package sim is a simulated SGX platform for machines without a TEE. It is as
// strict as hardware: seal keys and local reports are bound to the measured
// program, and its quotes have Intel's form under a root of its own. And it is
// worth nothing as a credential: whoever reads its files has the keys. Only a
// domain whose genesis allows simulation accepts it.
//
// Here the machine is in the program itself, which is then measured by itself:
// for unit tests and `ehsm dev`. Between processes a daemon measures: packages
// daemon and remote.
//
// It trusts the directory it is given, and hides nothing from the host.
// Files: docs/formats.md#simulated-platform.
package sim

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

const sealLabel = "ehsm/sim-seal/v1\x00"

// Options say how a processor is opened. The zero value is usable.
type Options struct {
	// Fleet is the directory of the fleet that the processor belongs to, which
	// several may share. "" means FleetDir in the processor's own directory.
	Fleet string
	// Now is when certificates that do not exist yet are made. Zero: time.Now.
	Now time.Time
	// NoSealKey has the processor give no seal keys, as a machine with TDX or
	// SEV-SNP gives none.
	NoSealKey bool
}

// A Processor is one simulated machine: a fuse key, a development signer, and a
// quoting enclave of a fleet. It is safe for concurrent use.
type Processor struct {
	fuse     secret.Bytes
	signer   ed25519.PublicKey // of programs that nobody signed
	fleet    *issue.Fleet
	quoter   *issue.Machine
	platform verify.Platform
	noSeal   bool
}

// OpenProcessor opens the simulated machine in dir. Where dir is missing or
// empty it makes a new one; one lost key of two is an error and never a machine
// with other keys. What only attestation needs is made when it is absent. Files
// that others may read are refused, and damaged ones are never replaced.
func OpenProcessor(dir string, o Options) (*Processor, error) {
	dir = filepath.Clean(dir) // "sim/" would be its own parent
	p, err := openProcessor(dir, o)
	if err != nil {
		return nil, fmt.Errorf("simulated machine %s: %w", dir, err)
	}
	return p, nil
}

func openProcessor(dir string, o Options) (*Processor, error) {
	if o.Fleet == "" {
		o.Fleet = filepath.Join(dir, FleetDir)
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if err := create(dir); err != nil {
		return nil, err
	}
	fuse, err := readSeed(filepath.Join(dir, machineFile))
	if err != nil {
		return nil, err
	}
	seed, err := readSeed(filepath.Join(dir, SignerFile))
	if err != nil {
		return nil, err
	}
	p := &Processor{fuse: fuse, signer: ed25519.NewKeyFromSeed(seed.Expose()).Public().(ed25519.PublicKey), noSeal: o.NoSealKey}
	seed.Zero()
	return p, p.join(dir, o)
}

// Load starts a measured program on the processor. product and svn are what it
// was built as: they must be those of its signature. Without a signature the
// machine's development signer vouches for them, as it does for any program.
// Errors: tee.ErrIdentity.
func (p *Processor) Load(program Program, product, svn uint16) (*Machine, error) {
	m := &Machine{p: p, program: program, id: tee.Identity{
		Measurement: program.Measurement, Signer: SignerID(p.signer), Product: product, SVN: svn,
	}}
	if s := program.Signature; s != nil {
		m.id = s.identity()
	}
	return m, m.id.Check(product, svn)
}

// A Machine is a processor that runs one program.
type Machine struct {
	p       *Processor
	program Program
	id      tee.Identity
}

var (
	_ tee.Platform      = (*Machine)(nil)
	_ tee.Attester      = (*Machine)(nil)
	_ tee.LocalReporter = (*Machine)(nil)
)

// Open opens the simulated machine in dir for the program that calls it, which
// was built as a product and version. Errors are those of OpenProcessor,
// MeasureSelf and Load.
func Open(dir string, product, svn uint16) (*Machine, error) {
	return OpenWith(dir, product, svn, Options{})
}

// OpenWith is Open with options.
func OpenWith(dir string, product, svn uint16, o Options) (*Machine, error) {
	p, err := OpenProcessor(dir, o)
	if err != nil {
		return nil, err
	}
	program, err := MeasureSelf()
	if err != nil {
		return nil, err
	}
	return p.Load(program, product, svn)
}

// Name implements tee.Platform.
func (m *Machine) Name() string { return "sim" }

// Simulated implements tee.Platform.
func (m *Machine) Simulated() bool { return true }

// Encloses implements tee.Enclosing: what protects nothing has nothing outside.
func (m *Machine) Encloses() bool { return true }

// Identity implements tee.Platform.
func (m *Machine) Identity() tee.Identity { return m.id }

// Program returns what was measured of the program.
func (m *Machine) Program() Program { return m.program }

// DevelopmentSigner reports that nobody signed the program, so that the signer
// in its identity is the machine's own, who vouches for anything.
func (m *Machine) DevelopmentSigner() bool { return m.program.Signature == nil }

// SealKey implements tee.Platform. Layout: docs/formats.md#domainkey-bundle-v1.
func (m *Machine) SealKey(q tee.KeyRequest) (secret.Bytes, error) {
	if m.p.noSeal {
		return secret.Bytes{}, fmt.Errorf("%w: the simulated machine was started without seal keys", tee.ErrNoSealKey)
	}
	if q.SVN > m.id.SVN {
		return secret.Bytes{}, fmt.Errorf("%w: sealed by version %d, this is %d", tee.ErrKeyRequest, q.SVN, m.id.SVN)
	}
	if len(q.Info) > 0 { // the simulator has none, and one request has one encoding
		return secret.Bytes{}, fmt.Errorf("%w: key information of another platform", tee.ErrKeyRequest)
	}
	info := []byte(sealLabel)
	info = append(info, byte(q.Policy))
	switch q.Policy {
	case tee.BindSigner:
		info = append(info, m.id.Signer[:]...)
	case tee.BindMeasured:
		info = append(info, m.id.Measurement[:]...)
	default:
		return secret.Bytes{}, fmt.Errorf("%w: policy %d is unknown", tee.ErrKeyRequest, q.Policy)
	}
	info = binary.BigEndian.AppendUint16(info, m.id.Product)
	info = binary.BigEndian.AppendUint16(info, q.SVN)
	if m.id.Debug {
		info = append(info, 1)
	}
	key, err := hkdf.Key(sha256.New, m.p.fuse.Expose(), q.KeyID[:], string(info), 32)
	return secret.New(key), err
}
