package escrow

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

const (
	backupMagic  = "ehsm/domain-backup/v1\n"
	requestMagic = "ehsm/restore-request/v1\n"

	maxManifests  = 4096
	maxManifest   = 1 << 20 // bytes
	maxEscrow     = 5 << 20
	maxShare      = 4 << 10
	maxEvidence   = 17 << 10
	maxCollateral = 1 << 20
)

// A Backup is all that is needed, beside k custodians and a machine that the
// operators admit, to have the DomainKey again. Nothing in it is secret.
type Backup struct {
	Manifests [][]byte // the genesis and what follows
	Escrow    []byte
	Shares    [][]byte // those of the recovery key in force; custodians have theirs too
}

// Has reports whether a manifest is in b.
func (b *Backup) Has(m []byte) bool {
	return slices.ContainsFunc(b.Manifests, func(have []byte) bool { return bytes.Equal(have, m) })
}

// Encode returns the one encoding of b. Its last 32 bytes show damage and prove
// nothing.
func (b *Backup) Encode() []byte {
	out := appendList([]byte(backupMagic), b.Manifests)
	out = pack.AppendBytes(out, b.Escrow)
	out = appendList(out, b.Shares)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

func appendList(dst []byte, list [][]byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(list)))
	for _, b := range list {
		dst = pack.AppendBytes(dst, b)
	}
	return dst
}

func readList(r *pack.Reader, most, limit int) [][]byte {
	list := make([][]byte, r.Count(most, 4))
	for i := range list {
		list[i] = r.Bytes(limit)
	}
	return list
}

// ParseBackup reads what Encode wrote, and nothing else. It verifies nothing but
// that the file is whole. Errors: ErrFile.
func ParseBackup(file []byte) (*Backup, error) {
	r, err := begin(file, backupMagic, "backup of a domain")
	if err != nil {
		return nil, err
	}
	b := &Backup{Manifests: readList(r, maxManifests, maxManifest), Escrow: r.Bytes(maxEscrow), Shares: readList(r, maxMembers, maxShare)}
	sum := sha256.Sum256(file[:len(file)-r.Len()])
	if string(r.Fixed(len(sum))) != string(sum[:]) {
		r.Fail("it is damaged")
	}
	return b, end(r, "backup of a domain")
}

// Contents are what a verified backup holds.
type Contents struct {
	States []*manifest.State // the chain of manifests
	Escrow *Escrow
	Shares []*Share
}

// State is what the last manifest says.
func (c *Contents) State() *manifest.State { return c.States[len(c.States)-1] }

// Verify checks the chain of manifests and that escrow and shares are of the
// recovery key in force, each share once. The caller compares the domain id with the one it knows. now may
// be zero; see manifest.State.Next. Errors: ErrFile, those of Chain, Escrow.Verify and Share.Verify.
func (b *Backup) Verify(now time.Time) (*Contents, error) {
	c := new(Contents)
	var err error
	if c.States, err = Chain(b.Manifests, now); err != nil {
		return nil, err
	}
	if c.Escrow, err = ParseEscrow(b.Escrow); err != nil {
		return nil, err
	}
	if err := c.Escrow.Verify(c.State()); err != nil { // check: backup-escrow
		return nil, err
	}
	if c.Escrow.Manifest > c.State().Version {
		return nil, fmt.Errorf("%w: the escrow is of manifest %d, the last one here is %d", ErrFile, c.Escrow.Manifest, c.State().Version)
	}
	seen := map[uint8]bool{}
	for _, f := range b.Shares {
		s, err := ParseShare(f)
		if err != nil {
			return nil, err
		}
		if err := s.Verify(c.State()); err != nil { // check: backup-share
			return nil, err
		}
		if seen[s.Index] {
			return nil, fmt.Errorf("%w: the share of %s is in it twice", ErrFile, s.Custodian)
		}
		seen[s.Index] = true
		c.Shares = append(c.Shares, s)
	}
	return c, nil
}

// Chain verifies manifests, the genesis first. now may be zero; see
// manifest.State.Next. Errors: ErrFile for none, those of manifest.Open and Next.
func Chain(files [][]byte, now time.Time) ([]*manifest.State, error) {
	if len(files) == 0 || len(files) > maxManifests {
		return nil, fmt.Errorf("%w: %d manifests", ErrFile, len(files))
	}
	first, err := manifest.Open(files[0])
	if err != nil {
		return nil, err
	}
	states := []*manifest.State{first}
	for _, f := range files[1:] {
		next, err := states[len(states)-1].Next(f, now)
		if err != nil {
			return nil, fmt.Errorf("manifest after version %d: %w", states[len(states)-1].Version, err)
		}
		states = append(states, next)
	}
	return states, nil
}

// Restorable checks that custodians may have the DomainKey restored under a chain
// of manifests: there is a recovery key, and simulated platforms, which protect nothing,
// are not allowed where they were excluded once. Errors: ErrNoRecovery, ErrSimulation.
func Restorable(states []*manifest.State) error {
	last := states[len(states)-1]
	if last.Recovery == nil || last.Custodians == nil {
		return ErrNoRecovery
	}
	for _, s := range states {
		if last.Settings.AllowSim && !s.Settings.AllowSim { // check: restore-simulation
			return fmt.Errorf("%w: version %d did not", ErrSimulation, s.Version)
		}
	}
	return nil
}

// A Request is what a TEE that restores says to the custodians.
type Request struct {
	Backup     [32]byte      // SHA-256 of the backup that it restores
	Manifests  [][]byte      // the genesis and what follows; the last is in force
	Session    [keySize]byte // public key, made in the TEE for this restoration
	Evidence   []byte        // evidence-v1, which binds all of the above
	Collateral []byte        // collateral-v1 of the machine's platform
}

// Encode returns the one encoding of r.
func (r *Request) Encode() []byte {
	out := append([]byte(requestMagic), r.Backup[:]...)
	out = appendList(out, r.Manifests)
	out = append(out, r.Session[:]...)
	return pack.AppendBytes(pack.AppendBytes(out, r.Evidence), r.Collateral)
}

// ParseRequest reads what Encode wrote, and nothing else. It verifies nothing; see
// package restoration. Errors: ErrFile.
func ParseRequest(b []byte) (*Request, error) {
	r, err := begin(b, requestMagic, "request of a restoration")
	if err != nil {
		return nil, err
	}
	q := new(Request)
	r.Array(q.Backup[:])
	q.Manifests = readList(r, maxManifests, maxManifest)
	r.Array(q.Session[:])
	q.Evidence, q.Collateral = r.Bytes(maxEvidence), r.Bytes(maxCollateral)
	return q, end(r, "request of a restoration")
}
