package overview

import (
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Limits of what a status lists, and of its texts in bytes.
const (
	MaxMembers    = 4096
	MaxWaiting    = 1024
	MaxAdvisories = 64
	MaxText       = 64  // a name, a status, an advisory, an address
	maxReason     = 512 // why something is so
)

// Printable reports whether a text of at most limit bytes shows as what it is:
// no control characters, which a terminal obeys, and none that turn the direction
// of writing.
func Printable(s string, limit int) bool {
	if len(s) > limit || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// Clean returns s as Printable has it: what does not print is a question mark,
// what is too long is cut.
func Clean(s string, limit int) string {
	b := make([]byte, 0, min(len(s), limit))
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			r = '?'
		}
		if len(b)+utf8.RuneLen(r) > limit {
			break
		}
		b = utf8.AppendRune(b, r)
	}
	return string(b)
}

func (s *Status) validate() error {
	switch {
	case len(s.Members) > MaxMembers || len(s.Waiting) > MaxWaiting: // check: status-lists
		return fmt.Errorf("%w: %d members and %d that wait, limits %d and %d", ErrStatus, len(s.Members), len(s.Waiting), MaxMembers, MaxWaiting)
	case s.Domain.Mode != manifest.Production && s.Domain.Mode != manifest.Development: // check: status-mode
		return fmt.Errorf("%w: mode %.40q", ErrStatus, s.Domain.Mode)
	}
	texts := []string{string(s.Domain.Root), s.Server.Kind, s.Server.Release}
	texts = append(append(texts, s.Manifest.Signers...), s.Manifest.Operators...)
	for _, p := range s.Machines {
		texts = append(texts, p.Name, p.Serial)
	}
	for _, w := range s.Waiting {
		texts = append(texts, w.Serial, w.Was, w.From)
	}
	for _, t := range texts {
		if !Printable(t, MaxText) { // check: status-texts
			return fmt.Errorf("%w: text %.80q", ErrStatus, t)
		}
	}
	if !Printable(s.Key.Lost, maxReason) { // check: status-lost
		return fmt.Errorf("%w: text %.80q", ErrStatus, s.Key.Lost)
	}
	for i := range s.Members {
		if err := s.Members[i].Validate(); err != nil {
			return err
		}
	}
	if s.Facts != nil {
		if err := s.Facts.validate(); err != nil {
			return err
		}
	}
	if s.Recovery != nil {
		return s.Recovery.validate()
	}
	return nil
}

// Validate refuses a member with a word that is not one, or with a text that is too
// long or does not print. Errors: ErrStatus.
func (m *Member) Validate() error {
	switch {
	case !slices.Contains(manifest.Roles(), m.Role): // check: member-role
		return fmt.Errorf("%w: role %.40q", ErrStatus, m.Role)
	case m.State != Connected && m.State != Left && m.State != Removed: // check: member-state
		return fmt.Errorf("%w: state %.40q", ErrStatus, m.State)
	case m.Evidence != ByQuote && m.Evidence != ByReport && m.Evidence != ByItself: // check: member-evidence
		return fmt.Errorf("%w: evidence %.40q", ErrStatus, m.Evidence)
	case len(m.Advisories) > MaxAdvisories: // check: member-advisories
		return fmt.Errorf("%w: %d advisories, limit %d", ErrStatus, len(m.Advisories), MaxAdvisories)
	}
	for _, t := range append([]string{m.Platform, m.Machine, m.Serial, m.TCBStatus, m.Address}, m.Advisories...) {
		if !Printable(t, MaxText) { // check: member-texts
			return fmt.Errorf("%w: text %.80q", ErrStatus, t)
		}
	}
	return nil
}
