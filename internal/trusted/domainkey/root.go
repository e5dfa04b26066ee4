package domainkey

import (
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// ErrRoot is returned where a platform would keep the DomainKey in another way than
// the domain asks for: sealed without the HSM, or with one that nobody wants.
var ErrRoot = errors.New("the DomainKey would not be kept as the domain asks for")

// A Rooted is a platform whose seal keys take something beside the TEE; package
// hsmroot has one. Every other platform is manifest.Seal.
type Rooted interface {
	tee.Platform
	// Root says what the seal keys take.
	Root() manifest.Root
}

// kept refuses a platform that keeps the DomainKey otherwise than root says.
func kept(p tee.Platform, root manifest.Root) error {
	has := manifest.Seal
	if r, ok := p.(Rooted); ok {
		has = r.Root()
	}
	switch {
	case has == root:
		return nil
	case root == manifest.HSM:
		return fmt.Errorf("%w: its root is %s, and this program has none", ErrRoot, root)
	}
	return fmt.Errorf("%w: its root is %s, and this program has %s", ErrRoot, root, has)
}

// admit refuses a platform whose keys the host can read where the domain asks for
// better, and one that keeps the DomainKey otherwise than the domain asks for.
func admit(p tee.Platform, t *manifest.Terms) error {
	if err := Protected(p, t); err != nil {
		return err
	}
	return kept(p, t.Root)
}

// Protected refuses a platform whose keys the host can read where the domain asks
// for better. Errors: ErrSimulated.
func Protected(p tee.Platform, t *manifest.Terms) error {
	protected := !p.Simulated() && !p.Identity().Debug
	switch {
	case p.Simulated() && !t.Settings.AllowSim: // check+: simulated: the next case refuses as well, with another text
		return ErrSimulated
	case !protected && !t.Settings.AllowSim: // check: debug
		return fmt.Errorf("%w, nor TEEs in debug mode", ErrSimulated)
	case !protected && t.Root == manifest.HSM && !t.Settings.HSMWithoutTEE: // check: hsm-without-tee
		// Such a host has all that the seal key takes, and the HSM serves it.
		return fmt.Errorf("%w for its HSM: hsmWithoutTEE is not set", ErrSimulated)
	}
	return nil
}
