// Package primitive is every cryptographic operation of the KMS over opened key
// material: message encryption under symmetric keys, signatures, asymmetric
// encryption, and the making of fresh material.
//
// It trusts the operating system's randomness, the standard library and the two
// libraries that supply what the standard library lacks (secp256k1; SM2, SM3
// and SM4). It decides nothing: whether a key may be used, in which state, by
// whom and with which padding is the caller's to check. It hides key material
// from formatters, and the reason of a failed decryption from everyone.
//
// Opened keys are safe for concurrent use. They have no method that erases
// them: a key zeroed under a running Encrypt would encrypt under a known key.
package primitive

import "errors"

// The errors a caller branches on. Everything this package returns wraps one of
// them, except failures of the machine's randomness, which end the process.
var (
	// ErrDecrypt is the one error of every failure that depends on a ciphertext
	// or its additional data. It is returned bare, so that its text cannot tell
	// one cause from another.
	ErrDecrypt = errors.New("decryption failed")
	// ErrUsage says that the operation does not exist for the key's spec.
	ErrUsage = errors.New("operation does not fit the key")
	// ErrParameter says that the operation exists, but not with this argument.
	ErrParameter = errors.New("parameter not allowed")
	// ErrMaterial says that key material does not parse as its spec. Material
	// comes out of authenticated records or from an importing owner.
	ErrMaterial = errors.New("key material malformed")
)
