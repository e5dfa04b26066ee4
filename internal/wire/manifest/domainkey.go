package manifest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
)

// ErrRotation says that the versions of the DomainKey in a manifest do not follow
// from those of the one before.
var ErrRotation = errors.New("versions of the DomainKey do not follow")

// maxKeyVersion is the most versions that a DomainKey may have.
const maxKeyVersion = 1 << 16

// A DomainKey says which versions of the DomainKey there are. A manifest may raise
// Version by one: the root dkeyserver then makes that version.
type DomainKey struct {
	// Version is the one that new records are wrapped with.
	Version uint32 `json:"version"`
	// Compromised are versions that somebody else may have: records are to be wrapped
	// anew, and keys that were made under them replaced. In ascending order; none is
	// the current one, and none is left out later.
	Compromised []uint32 `json:"compromised,omitempty"`
	// Forgotten are versions that every TEE zeroes: what is still wrapped by them,
	// in backups too, nobody can read any more. Ascending, not the current one, for
	// good.
	Forgotten []uint32 `json:"forgotten,omitempty"`
}

// IsZero reports whether d says nothing: there is version 1.
func (d DomainKey) IsZero() bool { return reflect.ValueOf(d).IsZero() }

// LastCompromised returns the highest version that is marked as compromised, 0 if
// none is.
func (d DomainKey) LastCompromised() uint32 {
	if len(d.Compromised) == 0 {
		return 0
	}
	return d.Compromised[len(d.Compromised)-1] // ascending
}

// DomainKeyVersion returns the number of the version that new records are wrapped
// with.
func (s *Settings) DomainKeyVersion() uint32 { return max(s.DomainKey.Version, 1) }

func (d DomainKey) validate() error {
	switch {
	case d.IsZero():
		return nil
	case d.Version < 2 || d.Version > maxKeyVersion: // about version 1 there is nothing to say
		return fmt.Errorf("domainKey: version %d, want 2 to %d", d.Version, maxKeyVersion)
	}
	for name, list := range map[string][]uint32{"compromised": d.Compromised, "forgotten": d.Forgotten} {
		last := uint32(0)
		for _, v := range list {
			if v <= last {
				return fmt.Errorf("domainKey: %s has version %d after %d", name, v, last)
			}
			if v >= d.Version {
				return fmt.Errorf("domainKey: version %d is %s and current is %d; make a new one with it", v, name, d.Version)
			}
			last = v
		}
	}
	return nil
}

// rotates refuses versions that do not follow from those of old.
func (s *Settings) rotates(old *Settings) error {
	was, is := old.DomainKeyVersion(), s.DomainKeyVersion()
	if is < was || is > was+1 {
		return fmt.Errorf("%w: version %d after %d; a manifest may raise it by one", ErrRotation, is, was)
	}
	for _, v := range old.DomainKey.Compromised {
		if !slices.Contains(s.DomainKey.Compromised, v) {
			return fmt.Errorf("%w: version %d was compromised before", ErrRotation, v)
		}
	}
	for _, v := range old.DomainKey.Forgotten {
		if !slices.Contains(s.DomainKey.Forgotten, v) {
			return fmt.Errorf("%w: version %d is forgotten for good", ErrRotation, v)
		}
	}
	return nil
}
