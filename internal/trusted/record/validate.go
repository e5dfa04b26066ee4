package record

import (
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// The same rules hold when sealing and when opening, so that a forgotten field
// is an error of the action that forgot it and not a record lost.

func (a *App) validate() error {
	if a.State != Active && a.State != Suspended && a.State != Destroyed {
		return fmt.Errorf("an app has no state %d", a.State)
	}
	if !printable(a.Name) {
		return fmt.Errorf("name is not of up to %d bytes of printable ASCII", MaxText)
	}
	if a.State == Destroyed {
		if len(a.Credentials) > 0 {
			return errors.New("a destroyed app has credentials")
		}
		return nil
	}
	return a.validateCredentials()
}

func (v KeyVersion) validate() error { return knownKind(v.Spec, v.Usage, v.Origin) }

// validate also checks that there is a key pair of so many bytes as long as the
// session is open, and none afterwards.
func (s *ImportSession) validate(keyPair int) error {
	switch {
	case !s.Wrapping.RSA():
		return fmt.Errorf("wrapping spec %d is no RSA spec", s.Wrapping)
	case s.State < SessionOpen || s.State > SessionExhausted:
		return fmt.Errorf("session state %d is unknown", s.State)
	case (s.State == SessionOpen) != (keyPair > 0):
		return fmt.Errorf("session of state %d with a key pair of %d bytes", s.State, keyPair)
	}
	return nil
}

func knownKind(spec primitive.Spec, usage Usage, origin Origin) error {
	switch {
	case !spec.Valid():
		return fmt.Errorf("spec %d is unknown", spec)
	case usage != EncryptDecrypt && usage != SignVerify:
		return fmt.Errorf("usage %d is unknown", usage)
	case origin != Internal && origin != External:
		return fmt.Errorf("origin %d is unknown", origin)
	}
	return nil
}

func knownState(s State) error {
	if s < PreActivation || s > Destroyed {
		return fmt.Errorf("state %d is unknown", s)
	}
	return nil
}

// sealable refuses a record that could not be opened again under h.
func sealable(h Header, want wire.RecordType, invalid error) error {
	if h.ID.Type != want {
		return fmt.Errorf("seal %s: the record is of type %s", h.ID, want)
	}
	if invalid != nil {
		return fmt.Errorf("seal %s: %w", h.ID, invalid)
	}
	return nil
}
