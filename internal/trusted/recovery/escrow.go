package recovery

import (
	"fmt"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Seal returns the escrow of keys under the manifest of s, dated now or, where that
// is earlier, like the manifest. Errors: escrow.ErrNoRecovery, escrow.ErrDomain.
func Seal(keys *domainkey.Keyring, s *manifest.State, now time.Time) ([]byte, error) {
	switch {
	case s.Recovery == nil:
		return nil, escrow.ErrNoRecovery
	case keys.Domain() != s.Domain:
		return nil, fmt.Errorf("DomainKey %w", escrow.ErrDomain)
	}
	if now.Before(s.Date) {
		now = s.Date
	}
	e := &escrow.Escrow{
		Domain: s.Domain, Manifest: s.Version, Date: now.UTC().Truncate(time.Second),
		Key: escrow.KeyID(s.Recovery), Versions: versions(keys),
	}
	var err error
	secret.Do(func() {
		plain := keys.Export()
		defer plain.Zero()
		e.Sealed, err = escrow.Seal(s.Recovery.PublicKey, e.Info(), plain.Expose())
	})
	if err != nil {
		return nil, fmt.Errorf("seal the escrow: %w", err)
	}
	e.Signature = keys.Sign(e.SignedText())
	return e.Encode(), nil
}

// Current reports whether a file is an escrow of all of keys for the recovery key
// of s, so that no other is needed.
func Current(file []byte, keys *domainkey.Keyring, s *manifest.State) bool {
	e, err := escrow.ParseEscrow(file)
	return err == nil && e.Verify(s) == nil && slices.Equal(e.Versions, versions(keys))
}

// versions lists the versions of the DomainKey that keys has.
func versions(keys *domainkey.Keyring) []uint32 {
	var all []uint32
	for v := uint32(1); v <= keys.Newest(); v++ {
		if keys.Holds(v) {
			all = append(all, v)
		}
	}
	return all
}
