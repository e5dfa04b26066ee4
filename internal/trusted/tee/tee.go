// Package tee is what the trusted programs ask of the platform they run on.
//
// One package per platform implements it; the main function of each program
// chooses. It trusts the platform to give its seal keys only to the code they
// are bound to. What only some platforms can do is in interfaces of its own,
// found by assertion: Attester, LocalReporter, KeyMaker, Enclosing.
package tee

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

var (
	// ErrNoPlatform says that the TEE that was asked for is not there.
	ErrNoPlatform = errors.New("trusted execution environment not found")
	// ErrIdentity says that the platform measured something else than the
	// program takes itself for.
	ErrIdentity = errors.New("the platform measured another program")
	// ErrKeyRequest says that the platform does not give the seal key asked
	// for: it belongs to other code, another version or another machine.
	ErrKeyRequest = errors.New("seal key not available to this code on this machine")
	// ErrNoSealKey says that the platform has no seal keys at all.
	ErrNoSealKey = errors.New("this platform cannot seal")
	// ErrEvidence says that the platform's evidence or report is not what was
	// asked for.
	ErrEvidence = errors.New("evidence is not what was asked for")
)

// Product ids, the role of a binary among those of one signer.
const (
	ProductCore       uint16 = 1 // also `ehsm dev`, which holds a core
	ProductDKeyCache  uint16 = 2 // hands the DomainKey to the cores of its node
	ProductDKeyServer uint16 = 3 // makes and keeps the DomainKey
)

// MaxKeyInfo is the most key information of a platform's own, in bytes.
const MaxKeyInfo = 1024

// Policy says to what a seal key is bound.
type Policy uint8

const (
	_            Policy = iota
	BindSigner          // same signer and product: a rebuilt binary opens the seal
	BindMeasured        // exactly this code
)

// Identity is what a platform measured of the running program. The names are
// those of SGX; platforms that measure a whole guest say in their package what
// they put there.
type Identity struct {
	Measurement [32]byte // MRENCLAVE
	Signer      [32]byte // MRSIGNER
	Product     uint16   // ISVPRODID
	SVN         uint16   // ISVSVN
	Debug       bool
}

// Check refuses an identity that was not built as the program that runs.
// Errors: ErrIdentity.
func (id Identity) Check(product, svn uint16) error {
	if id.Product != product || id.SVN != svn {
		return fmt.Errorf("%w: it is signed as product %d version %d, this program is product %d version %d; sign it again",
			ErrIdentity, id.Product, id.SVN, product, svn)
	}
	return nil
}

// A KeyRequest names one seal key. It is stored beside what the key sealed, so
// the host can change it: a platform checks all of it. The zero value names no
// key, and no platform gives one for it.
type KeyRequest struct {
	Policy Policy
	SVN    uint16   // at most the running program's
	KeyID  [32]byte // random; another value gives another key
	Info   []byte   // what else the platform needs, at most MaxKeyInfo bytes; often empty
}

// A Platform is a running TEE. Its methods are safe for concurrent use.
type Platform interface {
	// Name is the platform's short name, such as "sim".
	Name() string
	// Simulated reports that nothing is protected by hardware.
	Simulated() bool
	// Identity returns what the platform measured of this program.
	Identity() Identity
	// SealKey derives the 32-byte key of the request for this program.
	// Errors: ErrKeyRequest, and ErrNoSealKey for every request.
	SealKey(KeyRequest) (secret.Bytes, error)
}

// An Attester is a platform with evidence for others. Package attest says what
// evidence is and how REPORTDATA is made.
type Attester = attest.Attester

// A LocalReporter is a platform whose programs can prove to each other that they
// run on one machine, as EREPORT of SGX does.
type LocalReporter interface {
	// Target returns what a peer needs to make reports for this program. It is
	// public, and proves nothing.
	Target() ([]byte, error)
	// Report binds reportData to this program, for the program of target.
	Report(target []byte, reportData [64]byte) ([]byte, error)
	// VerifyReport returns who made report for this program on this machine,
	// and its reportData. Errors: ErrEvidence.
	VerifyReport(report []byte) (Identity, [64]byte, error)
}

// Seals reports whether p has seal keys: what it seals it opens after a restart.
func Seals(p Platform) bool {
	_, err := p.SealKey(KeyRequest{}) // of no key; a platform without any says so
	return !errors.Is(err, ErrNoSealKey)
}

// A KeyMaker is a platform that fills in key requests itself, because some of
// it is the machine's: the security version of the processor, say.
type KeyMaker interface {
	// NewSealKey returns a key that was never given before, 32 bytes, and the
	// request that gives it again. Errors: ErrKeyRequest.
	NewSealKey(Policy) (KeyRequest, secret.Bytes, error)
}

// NewSealKey returns a key of p that was never given before, and the request
// that gives it again. Errors: ErrKeyRequest, ErrNoSealKey.
func NewSealKey(p Platform, policy Policy) (KeyRequest, secret.Bytes, error) {
	if m, ok := p.(KeyMaker); ok {
		return m.NewSealKey(policy)
	}
	q := KeyRequest{Policy: policy, SVN: p.Identity().SVN}
	rand.Read(q.KeyID[:]) // never fails
	key, err := p.SealKey(q)
	return q, key, err
}

// Enclosing is a platform that may hold a whole node: a virtual machine, or the
// simulation of one. The manager is then in the TEE of the core. Enclaves never do.
type Enclosing interface {
	// Encloses reports that the programs beside this one are in its TEE too.
	Encloses() bool
}

// WholeNode reports whether the programs beside this one are in its TEE too.
func WholeNode(p Platform) bool {
	e, ok := p.(Enclosing)
	return ok && e.Encloses()
}
