package overview

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Recovery is who can have the DomainKey restored, and what they would get by the
// escrow that the answering dkeyserver has.
type Recovery struct {
	Threshold  int      `json:"threshold"` // of the custodians that it takes
	Custodians []string `json:"custodians"`
	// Written is when a TEE of the domain wrote the escrow; zero where there is none
	// for these custodians.
	Written  time.Time `json:"written,omitzero"`
	Versions []uint32  `json:"versions,omitempty"` // of the DomainKey that are in it
	// Asked says that the answering dkeyserver has no DomainKey and asks the custodians
	// for it; nil: it does not.
	Asked *Asked `json:"asked,omitempty"`
}

// Asked is what a dkeyserver on a platform without seal keys waits for.
type Asked struct {
	Have        []string `json:"have,omitempty"`        // custodians whose shares it has
	Dkeyservers int      `json:"dkeyservers,omitempty"` // others that it asks as well
}

// Waits says in words what the dkeyserver waits for, which has no DomainKey.
func (r *Recovery) Waits() string {
	text := fmt.Sprintf("waits for %d of %s", r.Threshold, strings.Join(r.Custodians, ", "))
	if len(r.Asked.Have) > 0 {
		text += fmt.Sprintf(" (has %s)", strings.Join(r.Asked.Have, ", "))
	}
	if r.Asked.Dkeyservers > 0 {
		text += ", or for another dkeyserver"
	}
	return text
}

// Limits of what is said of a recovery.
const (
	maxCustodians = 64
	maxVersions   = 1 << 16
)

func (r *Recovery) validate() error {
	if len(r.Custodians) > maxCustodians || len(r.Versions) > maxVersions || r.Threshold < 1 || r.Threshold > len(r.Custodians) { // check: recovery-numbers
		return fmt.Errorf("%w: %d of %d custodians, %d versions", ErrStatus, r.Threshold, len(r.Custodians), len(r.Versions))
	}
	names := slices.Clone(r.Custodians)
	if r.Asked != nil {
		if len(r.Asked.Have) > len(r.Custodians) || r.Asked.Dkeyservers < 0 { // check: recovery-asked
			return fmt.Errorf("%w: shares of %d custodians", ErrStatus, len(r.Asked.Have))
		}
		names = append(names, r.Asked.Have...)
	}
	for _, name := range names {
		if !Printable(name, MaxText) { // check: recovery-names
			return fmt.Errorf("%w: text %.80q", ErrStatus, name)
		}
	}
	return nil
}

// warnRecovery says what custodians could not restore.
func warnRecovery(s *Status) []Warning {
	r := s.Recovery
	switch {
	case r == nil || s.Key.Version == 0:
		return nil
	case r.Written.IsZero():
		return []Warning{{"no-escrow", "this dkeyserver has no escrow for the custodians: they could not restore the DomainKey"}}
	case !slices.Contains(r.Versions, s.Key.Version):
		return []Warning{{"old-escrow", fmt.Sprintf("the escrow lacks version %d of the DomainKey", s.Key.Version)}}
	}
	return nil
}
