// Package tee is what the trusted programs ask of the platform they run on.
//
// One package per platform implements it; the main function of each program
// chooses. It trusts the platform to give its seal keys only to the code they
// are bound to.
package tee

import (
	"errors"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

var (
	// ErrNoPlatform says that the TEE that was asked for is not there.
	ErrNoPlatform = errors.New("trusted execution environment not found")
	// ErrKeyRequest says that the platform does not give the seal key asked
	// for: it belongs to other code, another version or another machine.
	ErrKeyRequest = errors.New("seal key not available to this code on this machine")
)

// Product ids, the role of a binary among those of one signer.
const (
	ProductCore uint16 = 1 // also `ehsm dev`, which holds a core
)

// Policy says to what a seal key is bound.
type Policy uint8

const (
	_            Policy = iota
	BindSigner          // same signer and product: a rebuilt binary opens the seal
	BindMeasured        // exactly this code
)

// Identity is what a platform measured of the running program.
type Identity struct {
	Measurement [32]byte // MRENCLAVE
	Signer      [32]byte // MRSIGNER
	Product     uint16   // ISVPRODID
	SVN         uint16   // ISVSVN
	Debug       bool
}

// A KeyRequest names one seal key. It is stored beside what the key sealed.
type KeyRequest struct {
	Policy Policy
	SVN    uint16   // at most the running program's
	KeyID  [32]byte // random; another value gives another key
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
	// Errors: ErrKeyRequest.
	SealKey(KeyRequest) (secret.Bytes, error)
}
