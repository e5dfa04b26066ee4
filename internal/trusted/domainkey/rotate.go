package domainkey

import (
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/failpoint"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Rotate makes the versions that the manifest of s asks for and that k does not
// have, and returns the keys with them, in home: k itself if there are none to make.
// They are sealed in dir before they are returned, so that nobody uses or gets a
// version that the power can take away; kept, unless nil, is then called, to keep
// them elsewhere too. On a platform without seal keys kept alone does it. Only one TEE of a domain may do this, or there would be two
// keys of one number. Errors: those of Seal and kept, secret.ErrMemory.
func (k *Keyring) Rotate(dir string, p tee.Platform, home *secret.Home, s *manifest.Settings, kept func(*Keyring) error) (*Keyring, error) {
	was := k
	for k.Newest() < s.DomainKeyVersion() {
		next, err := k.Next(home)
		if err != nil {
			return nil, fmt.Errorf("make version %d of the DomainKey: %w", k.Newest()+1, err)
		}
		k = next
	}
	if k == was {
		return k, nil
	}
	if err := failpoint.Hit("rotate.made", "root"); err != nil {
		return nil, err
	}
	if kept == nil || tee.Seals(p) {
		if err := k.Seal(dir, p); err != nil { // check: rotate-sealed
			return nil, fmt.Errorf("seal version %d of the DomainKey: %w", k.Newest(), err)
		}
	}
	if err := failpoint.Hit("rotate.sealed", "root"); err != nil {
		return nil, err
	}
	if kept == nil {
		return k, nil
	}
	return k, kept(k)
}
