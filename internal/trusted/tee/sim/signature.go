package sim

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

const (
	signerLabel    = "ehsm/sim-signer/v1\x00"
	signatureLabel = "ehsm/sim-signature/v1\x00"

	signatureV1   = 1
	signedSize    = 1 + ed25519.PublicKeySize + 32 + 2 + 2 + 1
	signatureSize = signedSize + ed25519.SignatureSize
)

// ErrSignature is returned for a signature file that does not sign the program
// it lies beside.
var ErrSignature = errors.New("the program's signature is wrong")

// A Signature is who signed a program, and as what: the SIGSTRUCT of the
// simulated platform. Layout: docs/formats.md#simulated-platform.
type Signature struct {
	Signer      ed25519.PublicKey
	Measurement [32]byte
	Product     uint16
	SVN         uint16
	Debug       bool // the host may read the program's memory
	Value       [ed25519.SignatureSize]byte
}

// SignerID returns the MRSIGNER of a signer: SHA-256 over a label and its key.
func SignerID(key ed25519.PublicKey) [32]byte {
	return sha256.Sum256(append([]byte(signerLabel), key...))
}

// Sign makes the signature of a program, with an Ed25519 seed of 32 bytes.
func Sign(seed secret.Bytes, measurement [32]byte, product, svn uint16, debug bool) (Signature, error) {
	if seed.Len() != ed25519.SeedSize {
		return Signature{}, fmt.Errorf("signing key has %d bytes, want %d", seed.Len(), ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(seed.Expose())
	s := Signature{
		Signer: key.Public().(ed25519.PublicKey), Measurement: measurement, Product: product, SVN: svn, Debug: debug,
	}
	copy(s.Value[:], ed25519.Sign(key, s.message()))
	return s, nil
}

func (s *Signature) appendSigned(dst []byte) []byte {
	dst = append(dst, signatureV1)
	dst = append(dst, s.Signer...)
	dst = append(dst, s.Measurement[:]...)
	dst = binary.BigEndian.AppendUint16(dst, s.Product)
	dst = binary.BigEndian.AppendUint16(dst, s.SVN)
	return pack.AppendBool(dst, s.Debug)
}

func (s *Signature) message() []byte { return s.appendSigned([]byte(signatureLabel)) }

// Append appends the encoding of s, 134 bytes.
func (s *Signature) Append(dst []byte) []byte { return append(s.appendSigned(dst), s.Value[:]...) }

// DecodeSignature reads what Append wrote and verifies the signature. Whose it
// is, and for which program, is for the caller to judge. Errors: ErrSignature.
func DecodeSignature(b []byte) (Signature, error) {
	r := pack.NewReader(b)
	if v := r.Uint8(); r.Err() == nil && v != signatureV1 {
		r.Fail("format %d is unknown", v)
	}
	s := Signature{Signer: append(ed25519.PublicKey(nil), r.Fixed(ed25519.PublicKeySize)...)}
	r.Array(s.Measurement[:])
	s.Product, s.SVN, s.Debug = r.Uint16(), r.Uint16(), r.Bool()
	r.Array(s.Value[:])
	if err := r.Close(); err != nil {
		return Signature{}, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if !ed25519.Verify(s.Signer, s.message(), s.Value[:]) {
		return Signature{}, fmt.Errorf("%w: it does not verify", ErrSignature)
	}
	return s, nil
}

func (s *Signature) identity() tee.Identity {
	return tee.Identity{
		Measurement: s.Measurement, Signer: SignerID(s.Signer), Product: s.Product, SVN: s.SVN, Debug: s.Debug,
	}
}

// NewSigner makes a file with a new signing key, mode 0600. A file that exists
// is an error.
func NewSigner(path string) error {
	seed := make([]byte, seedSize)
	rand.Read(seed) // never fails
	defer clear(seed)
	if err := writeSynced(path, seed); err != nil {
		return fmt.Errorf("make a signing key: %w", err)
	}
	return nil
}

// SignFile signs the executable at path with the key in keyFile, 32 bytes that
// only their owner may read, and writes the signature beside it in place of an
// older one. Errors: ErrProgram, ErrEnvironment.
func SignFile(path, keyFile string, product, svn uint16, debug bool) (Signature, error) {
	seed, err := readSeed(keyFile)
	if err != nil {
		return Signature{}, fmt.Errorf("signing key: %w", err)
	}
	defer seed.Zero()
	exe, err := os.Open(path)
	if err != nil {
		return Signature{}, fmt.Errorf("%w: %w", ErrProgram, err)
	}
	defer exe.Close()
	p, err := measureUnsigned(exe, path)
	if err != nil {
		return Signature{}, err
	}
	s, err := Sign(seed, p.Measurement, product, svn, debug)
	if err != nil {
		return Signature{}, err
	}
	return s, replace(path+SignatureSuffix, s.Append(nil))
}
