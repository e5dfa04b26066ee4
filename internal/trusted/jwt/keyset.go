package jwt

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
)

// Limits of key sets.
const (
	MaxKeySet = 16 << 10 // bytes of JSON
	MaxKeys   = 8        // of one issuer
)

// ErrKeys is wrapped by the errors of ParseKeys.
var ErrKeys = errors.New("key set is not usable")

// ParseKeys reads a JSON Web Key Set (RFC 7517) of 1 to MaxKeys public keys for
// signatures, each with an id ("kid") of its own. Where a key names no algorithm it is
// RS256 for RSA, ES256, ES384 or EdDSA by the curve. Members that are unknown mean
// nothing; a private key, a symmetric key and a key for another use are errors, as it
// is not what its owner thinks it is. Errors: ErrKeys.
func ParseKeys(b []byte) ([]Key, error) {
	_, root, err := strictjson.Parse(b, MaxKeySet)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeys, err)
	}
	var keys []Key
	for i, n := range root.Member("keys").Items(MaxKeys) {
		k, err := readKey(n)
		if err != nil {
			return nil, fmt.Errorf("%w: key %d: %w", ErrKeys, i, err)
		}
		if slices.ContainsFunc(keys, func(have Key) bool { return have.ID == k.ID }) {
			return nil, fmt.Errorf("%w: key %d: another one has its id", ErrKeys, i)
		}
		keys = append(keys, k)
	}
	if err := root.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeys, err)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: no keys", ErrKeys)
	}
	return keys, nil
}

// readKey reads one key of a set.
func readKey(n *strictjson.Node) (k Key, err error) {
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if n.Has(private) {
			return k, fmt.Errorf("it has the private or secret member %q", private)
		}
	}
	if err := readUse(n); err != nil {
		return k, err
	}
	var usual Algorithm
	switch kty := n.Member("kty").Text(); kty {
	case "RSA":
		usual, k.Public, err = readRSA(n)
	case "EC":
		usual, k.Public, err = readPoint(n)
	case "OKP":
		usual, k.Public, err = readEd25519(n)
	default:
		return k, errors.Join(n.Err(), fmt.Errorf("kty %q, want RSA, EC or OKP", kty))
	}
	if err != nil {
		return k, err
	}
	k.ID, k.Algorithm = n.Member("kid").Text(), usual
	if n.Has("alg") {
		name := n.Member("alg").Text()
		k.Algorithm = parseAlgorithm(name)
		if k.Algorithm != usual && (usual != RS256 || k.Algorithm != PS256) {
			return k, fmt.Errorf("alg %q does not fit the key", name)
		}
	}
	if err := n.Err(); err != nil {
		return k, err
	}
	return k, k.Check()
}

// readUse refuses a key that is for something else than verifying signatures.
func readUse(n *strictjson.Node) error {
	if n.Has("use") && n.Member("use").Text() != "sig" {
		return errors.New("its use is not sig")
	}
	if !n.Has("key_ops") {
		return n.Err()
	}
	for _, op := range n.Member("key_ops").Items(8) {
		if op.Text() == "verify" {
			return n.Err()
		}
	}
	return errors.Join(n.Err(), errors.New("its key_ops do not have verify"))
}

func readRSA(n *strictjson.Node) (Algorithm, []byte, error) {
	modulus, err := decodeSegment(n.Member("n").Text())
	if err != nil {
		return 0, nil, err
	}
	exponent, err := decodeSegment(n.Member("e").Text())
	if err != nil {
		return 0, nil, err
	}
	if n.Err() != nil || len(modulus) > maxModulus/8 || len(exponent) > 4 || len(modulus) == 0 || modulus[0] == 0 || len(exponent) == 0 || exponent[0] == 0 {
		return 0, nil, errors.Join(n.Err(), fmt.Errorf("%w: modulus of %d bytes, exponent of %d", errPublic, len(modulus), len(exponent)))
	}
	e := new(big.Int).SetBytes(exponent)
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: int(e.Int64())}
	return RS256, x509.MarshalPKCS1PublicKey(key), nil
}

func readPoint(n *strictjson.Node) (a Algorithm, point []byte, err error) {
	half := 32
	switch crv := n.Member("crv").Text(); crv {
	case "P-256":
		a = ES256
	case "P-384":
		a, half = ES384, 48
	default:
		return 0, nil, errors.Join(n.Err(), fmt.Errorf("curve %q, want P-256 or P-384", crv))
	}
	point = []byte{4}
	for _, name := range []string{"x", "y"} {
		b, err := decodeSegment(n.Member(name).Text())
		if err != nil || len(b) != half {
			return 0, nil, errors.Join(n.Err(), err, fmt.Errorf("%w: %s of %d bytes, want %d", errPublic, name, len(b), half))
		}
		point = append(point, b...)
	}
	return a, point, nil
}

func readEd25519(n *strictjson.Node) (Algorithm, []byte, error) {
	if crv := n.Member("crv").Text(); crv != "Ed25519" {
		return 0, nil, errors.Join(n.Err(), fmt.Errorf("curve %q, want Ed25519", crv))
	}
	b, err := decodeSegment(n.Member("x").Text())
	return EdDSA, b, err
}
