package overview

import (
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Facts is how far the log of negative facts goes, as the answering dkeyserver knows
// it: what was disabled or deleted, and stays so.
type Facts struct {
	Entries uint64        `json:"entries"`
	Hash    manifest.Hash `json:"hash"` // of the last entry
	// Unproven is how many entries other heads have of which no core has said yet
	// that they are of the same log.
	Unproven []uint64 `json:"unproven,omitempty"`
	// Fork says how another program's log differs; empty if none does.
	Fork string `json:"fork,omitempty"`
}

// maxUnproven is how many heads may be unproven.
const maxUnproven = 8

func (f *Facts) validate() error {
	if len(f.Unproven) > maxUnproven || !Printable(f.Fork, maxReason) {
		return fmt.Errorf("%w: %d heads that are not proven, fork %.80q", ErrStatus, len(f.Unproven), f.Fork)
	}
	return nil
}

// warnFacts says when two logs are shown. What is not proven yet is so for some
// seconds after each change that several nodes made at once, and where no core runs.
func warnFacts(s *Status) []Warning {
	if s.Facts == nil || s.Facts.Fork == "" {
		return nil
	}
	return []Warning{{"facts-fork", "programs were shown different logs of what was disabled and deleted: " + s.Facts.Fork}}
}
