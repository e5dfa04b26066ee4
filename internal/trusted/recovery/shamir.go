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
)

// keyLabel is of the derivation of the recovery key from the shared scalar.
const keyLabel = "ehsm/recovery-key/v1\x00"

// errCommitment says that the commitment of a manifest is none. No program makes
// such manifests, but operators could sign one.
var errCommitment = errors.New("commitment of the recovery key")

// split shares a scalar among members, of whom threshold have to come together, and
// commits to it. Layout: docs/formats.md#recovery-key.
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

// fits checks a share against a commitment. Errors: ErrShare.
func fits(index uint8, value secret.Bytes, commitment []byte) error {
	share, err := decodeShare(index, value)
	if err != nil {
		return err
	}
	defer share.Value.SetUint64(0)
	var elements secretsharing.SecretCommitment
	for ; len(commitment) >= escrow.ShareSize; commitment = commitment[escrow.ShareSize:] {
		e := group.Ristretto255.NewElement()
		if err := e.UnmarshalBinary(commitment[:escrow.ShareSize]); err != nil {
			return fmt.Errorf("%w: %w", errCommitment, err)
		}
		elements = append(elements, e)
	}
	if len(elements) == 0 || !secretsharing.Verify(uint(len(elements)-1), share, elements) {
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

// combine returns the recovery key of threshold shares or more, each of which fits
// the commitment. Errors: ErrTooFew.
func combine(threshold int, shares map[uint8]secret.Bytes) (hpke.PrivateKey, error) {
	if len(shares) < threshold {
		return nil, fmt.Errorf("%w: %d of the %d that it takes", ErrTooFew, len(shares), threshold)
	}
	var all []secretsharing.Share
	for index, value := range shares {
		s, err := decodeShare(index, value)
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
	defer scalar.SetUint64(0)
	return derive(scalar)
}

// derive returns the HPKE key pair of a scalar.
func derive(scalar group.Scalar) (hpke.PrivateKey, error) {
	b, err := scalar.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("derive the recovery key: %w", err)
	}
	defer clear(b)
	seed, err := hkdf.Key(sha256.New, b, nil, keyLabel, escrow.ShareSize)
	if err != nil {
		return nil, fmt.Errorf("derive the recovery key: %w", err)
	}
	defer clear(seed)
	return hpke.MLKEM768X25519().NewPrivateKey(seed)
}
