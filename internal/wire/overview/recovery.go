package overview

import (
	"fmt"
	"slices"
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
}

// Limits of what is said of a recovery.
const (
	maxCustodians = 64
	maxVersions   = 1 << 16
)

func (r *Recovery) validate() error {
	if len(r.Custodians) > maxCustodians || len(r.Versions) > maxVersions || r.Threshold < 1 || r.Threshold > len(r.Custodians) {
		return fmt.Errorf("%w: %d of %d custodians, %d versions", ErrStatus, r.Threshold, len(r.Custodians), len(r.Versions))
	}
	for _, name := range r.Custodians {
		if !Printable(name, MaxText) {
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
