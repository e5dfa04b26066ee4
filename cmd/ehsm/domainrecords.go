package main

import (
	"fmt"
	"strings"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// barWidth is how many characters a bar of progress has.
const barWidth = 24

// keyText is the DomainKey on one line: what there is, and what operators say of it.
func keyText(k *overview.Key, s *manifest.Settings) string {
	text := versionText(k.Version)
	if want := s.DomainKeyVersion(); k.Version != 0 && k.Version < want {
		text += fmt.Sprintf("; version %d is asked for", want)
	}
	if c := s.DomainKey.Compromised; len(c) > 0 {
		text += "; compromised: " + versionsText(c)
	}
	if f := s.DomainKey.Forgotten; len(f) > 0 {
		text += "; forgotten: " + versionsText(f)
	}
	return text
}

// recordsText is how far the records follow the DomainKey, empty while it was never
// rotated.
func recordsText(r overview.Rewrap, told bool, s *manifest.Settings) string {
	want := s.DomainKeyVersion()
	switch {
	case want == 1:
		return ""
	case !told || r.Floor < want:
		return fmt.Sprintf("not under version %d yet: it is given to all programs first", want)
	case r.Done >= want && r.Refused == 0:
		return fmt.Sprintf("all wrapped under version %d", want)
	case r.Done >= want:
		return fmt.Sprintf("all wrapped under version %d, but for %d that are refused, such as those of keys that were deleted", want, r.Refused)
	}
	return fmt.Sprintf("%s wrapped under version %d, %d of about %d (by the word of the managers)", bar(r.Looked, r.Total), want, r.Looked, r.Total)
}

// bar shows a part of a whole, such as "[######..................]  25 %".
func bar(part, whole uint64) string {
	share := 0.0
	if whole > 0 {
		share = min(float64(part)/float64(whole), 1)
	}
	full := int(share * barWidth)
	return fmt.Sprintf("[%s%s] %3d %%", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), int(share*100))
}
