// Package recovery makes it possible to have the DomainKey of a domain again when
// all machines that hold it are lost, and only together with k of n custodians.
//
// A TEE makes a recovery key of two random scalars, shares them among the
// custodians and forgets them (Make). Dkeyservers keep the DomainKey encrypted to that
// key: the escrow (Seal). A TEE that restores collects shares, which custodians release
// to its attested session key, combines them and opens the escrow (Begin).
//
// It trusts the custodians not to come together against the domain, and package
// restoration to tell them to whom they release. It hides the scalars, the shares and
// the recovery key: outside of a TEE there is never more of them than what one custodian
// can open. Files and layouts: docs/formats.md#recovery-key.
package recovery

import (
	"crypto/hpke"
	"errors"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Errors of this package, wrapped with what was found.
var (
	// ErrCustodian says that a custodian's key is none that a share can be encrypted to.
	ErrCustodian = errors.New("key of a custodian")
	// ErrShare says that what a custodian released is not a share of the recovery key.
	ErrShare = errors.New("share refused")
	// ErrTwice says that a share is there already.
	ErrTwice = errors.New("this share is there already")
	// ErrSession says that an answer is for another restoration.
	ErrSession = errors.New("answer to another restoration")
	// ErrMachine says that the manifest does not admit this machine. It is the
	// verifier's own error, by a name that programs can use.
	ErrMachine = validate.ErrPlatform
	// ErrTooFew says that the shares do not suffice.
	ErrTooFew = errors.New("too few shares")
)

// A Key is a recovery key that was just made, with its shares. The scalars, and with
// them the private key, are forgotten already.
type Key struct {
	public     manifest.Recovery
	custodians *manifest.Quorum
	shares     []secret.Bytes // in the order of the custodians
}

// Make makes a recovery key for custodians. The caller calls Forget when it has the
// shares sealed. Errors: ErrCustodian.
func Make(custodians *manifest.Quorum) (*Key, error) {
	for _, p := range custodians.Members {
		if _, err := hpke.MLKEM768X25519().NewPublicKey(p.Key); err != nil {
			return nil, fmt.Errorf("%w %s: %w", ErrCustodian, p.Name, err)
		}
	}
	k := &Key{custodians: custodians}
	var err error
	secret.Do(func() { err = k.make(newPair()) })
	if err != nil {
		return nil, err
	}
	return k, nil
}

// make shares the scalars, and zeroes them.
func (k *Key) make(p pair) (err error) {
	defer p.zero()
	key, err := p.derive()
	if err != nil {
		return err
	}
	k.public.PublicKey = key.PublicKey().Bytes()
	if k.shares, k.public.Commitment, err = p.share(k.custodians.Threshold, len(k.custodians.Members)); err != nil {
		return err
	}
	for i, s := range k.shares {
		d := escrow.Digest(uint8(i+1), s.Expose())
		k.public.Digests = append(k.public.Digests, d[:]...)
	}
	return nil
}

// Public is what goes into a genesis.
func (k *Key) Public() *manifest.Recovery { return &k.public }

// Endorsed is what goes into a later manifest of the domain of keys.
func (k *Key) Endorsed(keys *domainkey.Keyring) *manifest.Recovery {
	r := k.public
	r.Endorsement = keys.Sign(manifest.EndorsedText(keys.Domain(), &r, k.custodians))
	return &r
}

// Shares returns the share of each custodian, sealed, by the name of its file for
// the manifest of a version.
func (k *Key) Shares(domain genesis.ID, version uint64) (map[string][]byte, error) {
	files := map[string][]byte{}
	for i, p := range k.custodians.Members {
		s := &escrow.Share{
			Domain: domain, Key: escrow.KeyID(&k.public), Index: uint8(i + 1), Threshold: uint8(k.custodians.Threshold),
			Members: uint8(len(k.custodians.Members)), Custodian: p.Name,
		}
		var err error
		secret.Do(func() { s.Sealed, err = escrow.Seal(p.Key, s.Info(), k.shares[i].Expose()) })
		if err != nil {
			return nil, fmt.Errorf("%w %s: %w", ErrCustodian, p.Name, err)
		}
		files[escrow.ShareFile(p.Name, version)] = s.Encode()
	}
	return files, nil
}

// Escrow is Seal, with the name of the file, for a domain that is being made.
func (k *Key) Escrow(keys *domainkey.Keyring, s *manifest.State, now time.Time) (name string, file []byte, err error) {
	file, err = Seal(keys, s, now)
	return escrow.File, file, err
}

// Forget zeroes the shares.
func (k *Key) Forget() {
	for _, s := range k.shares {
		s.Zero()
	}
	k.shares = nil
}
