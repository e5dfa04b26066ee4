package recovery

import (
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// keyLabel is of the derivation of the recovery key from the shared scalars.
const keyLabel = "ehsm/recovery-key/v1\x00"

// seedSize is the size of a private key for HPKE with MLKEM768-X25519, in bytes.
const seedSize = 32

// errCommitment says that the commitment of a manifest is none. No program makes
// such manifests, but operators could sign one.
var errCommitment = errors.New("commitment of the recovery key")

// A pair are the two scalars that are shared. The manifest commits to the first, so
// that shares are known to be of one polynomial; who computes discrete logarithms, with a
// quantum computer say, learns it from there. Nothing says anything of the second.
type pair struct{ committed, hidden group.Scalar }

func newPair() pair {
	return pair{group.Ristretto255.RandomNonZeroScalar(nil), group.Ristretto255.RandomNonZeroScalar(nil)}
}

func (p pair) zero() {
	p.committed.SetUint64(0)
	p.hidden.SetUint64(0)
}

// share splits both scalars, and returns the shares of members with the commitment
// to the first. Layout: docs/formats.md#recovery-key.
func (p pair) share(threshold, members int) (shares []secret.Bytes, commitment []byte, err error) {
	first, commitment, err := split(p.committed, threshold, members)
	if err != nil {
		return nil, nil, err
	}
	second, _, err := split(p.hidden, threshold, members)
	if err != nil {
		return nil, nil, err
	}
	for i := range first {
		shares = append(shares, secret.New(append(append(make([]byte, 0, escrow.ShareSize), first[i].Expose()...), second[i].Expose()...)))
		first[i].Zero()
		second[i].Zero()
	}
	return shares, commitment, nil
}

// split shares a scalar among members, of whom threshold have to come together, and
// commits to it.
func split(scalar group.Scalar, threshold, members int) (shares []secret.Bytes, commitment []byte, err error) {
	sharing := secretsharing.New(nil, uint(threshold-1), scalar)
	elements := sharing.CommitSecret()
	if len(elements) != threshold { // a leading coefficient is 0, by a chance of 2^-252
		return nil, nil, errCommitment
	}
	for _, e := range elements {
		b, err := e.MarshalBinary()
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errCommitment, err)
		}
		commitment = append(commitment, b...)
	}
	for _, s := range sharing.Share(uint(members)) {
		b, err := s.Value.MarshalBinary()
		s.Value.SetUint64(0)
		if err != nil {
			return nil, nil, fmt.Errorf("share of the recovery key: %w", err)
		}
		shares = append(shares, secret.New(b))
	}
	return shares, commitment, nil
}

// check compares a share with what the manifest says of it: that it is the one that a TEE
// has made for this custodian, and that its first half is on the polynomial to which the
// manifest commits. Errors: ErrShare.
func check(index uint8, value secret.Bytes, r *manifest.Recovery) error {
	if err := escrow.CheckDigest(index, value.Expose(), r); err != nil {
		return fmt.Errorf("%w: %w", ErrShare, err)
	}
	return fits(index, half(value, 0), r.Commitment)
}

// half is one of the scalars of a share, 0 or 1. It shares memory with value.
func half(value secret.Bytes, i int) secret.Bytes {
	return secret.New(value.Expose()[i*escrow.ScalarSize : (i+1)*escrow.ScalarSize])
}

// fits checks one scalar of a share against a commitment. Errors: ErrShare.
func fits(index uint8, value secret.Bytes, commitment []byte) error {
	share, err := decodeShare(index, value)
	if err != nil {
		return err
	}
	defer share.Value.SetUint64(0)
	var elements secretsharing.SecretCommitment
	for ; len(commitment) >= escrow.ScalarSize; commitment = commitment[escrow.ScalarSize:] {
		e := group.Ristretto255.NewElement()
		if err := e.UnmarshalBinary(commitment[:escrow.ScalarSize]); err != nil {
			return fmt.Errorf("%w: %w", errCommitment, err)
		}
		elements = append(elements, e)
	}
	if len(elements) == 0 || !secretsharing.Verify(uint(len(elements)-1), share, elements) { // check: share-commitment
		return fmt.Errorf("%w: it is not the one of the domain's recovery key", ErrShare)
	}
	return nil
}

func decodeShare(index uint8, value secret.Bytes) (secretsharing.Share, error) {
	s := secretsharing.Share{ID: group.Ristretto255.NewScalar().SetUint64(uint64(index)), Value: group.Ristretto255.NewScalar()}
	if err := s.Value.UnmarshalBinary(value.Expose()); err != nil || index == 0 {
		return s, fmt.Errorf("%w: it is no scalar", ErrShare)
	}
	return s, nil
}

// combine returns the recovery key of threshold shares or more, each of which was
// checked. Errors: ErrTooFew.
func combine(threshold int, shares map[uint8]secret.Bytes) (hpke.PrivateKey, error) {
	if len(shares) < threshold { // check+: shares-enough: the library counts them too
		return nil, fmt.Errorf("%w: %d of the %d that it takes", ErrTooFew, len(shares), threshold)
	}
	committed, err := join(threshold, shares, 0)
	if err != nil {
		return nil, err
	}
	hidden, err := join(threshold, shares, 1)
	if err != nil {
		return nil, err
	}
	p := pair{committed, hidden}
	defer p.zero()
	return p.derive()
}

// join returns the scalar of which shares have the values in one of their halves.
func join(threshold int, shares map[uint8]secret.Bytes, i int) (group.Scalar, error) {
	var all []secretsharing.Share
	for index, value := range shares {
		s, err := decodeShare(index, half(value, i))
		if err != nil {
			return nil, err
		}
		defer s.Value.SetUint64(0)
		all = append(all, s)
	}
	scalar, err := secretsharing.Recover(uint(threshold-1), all)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTooFew, err)
	}
	return scalar, nil
}

// derive returns the HPKE key pair of the scalars.
func (p pair) derive() (hpke.PrivateKey, error) {
	both := make([]byte, 0, escrow.ShareSize)
	defer func() { clear(both[:cap(both)]) }()
	for _, s := range []group.Scalar{p.committed, p.hidden} {
		b, err := s.MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("derive the recovery key: %w", err)
		}
		both = append(both, b...)
		clear(b)
	}
	seed, err := hkdf.Key(sha256.New, both, nil, keyLabel, seedSize)
	if err != nil {
		return nil, fmt.Errorf("derive the recovery key: %w", err)
	}
	defer clear(seed)
	return hpke.MLKEM768X25519().NewPrivateKey(seed)
}
