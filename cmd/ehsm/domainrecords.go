package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// barWidth is how many characters a bar of progress has.
const barWidth = 24

// keyText is the DomainKey on one line: what there is, for whom it waits, and what
// operators say of it.
func keyText(k *overview.Key, waits string, s *manifest.Settings) string {
	text := versionText(k.Version) + waits
	if k.InMemory && k.Version != 0 {
		text += ", in memory only: to be given again at the next start"
	}
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
		return fmt.Sprintf("all wrapped under version %d, but for %s that are refused, such as those of keys that were deleted", want, thousands(r.Refused))
	}
	return fmt.Sprintf("%s wrapped under version %d, %s of %s records (by the word of the managers)", bar(r.Looked, r.Total), want, thousands(r.Looked), thousands(r.Total))
}

// leftText is what has to be replaced after a leak, empty if no version has leaked.
func leftText(r overview.Rewrap, told bool, s *manifest.Settings) string {
	leaked := s.DomainKey.LastCompromised()
	switch {
	case leaked == 0:
		return ""
	case !told || r.Compromised != leaked:
		return "not counted yet: when all records are wrapped anew"
	case r.Keys+r.Secrets+r.APIKeys == 0:
		return fmt.Sprintf("nothing: all that was made under version %d or before is replaced (by the word of the managers)", leaked)
	}
	var parts []string
	for _, p := range []struct {
		n    uint64
		name string
	}{{r.Keys, "key"}, {r.Secrets, "secret"}, {r.APIKeys, "API key"}} {
		if p.n > 0 {
			parts = append(parts, countText(p.n, p.name))
		}
	}
	return fmt.Sprintf("%s in %s (by the word of the managers)", strings.Join(parts, ", "), countText(r.Tenants, "tenant"))
}

// countText is a number with its noun, such as "1,200 keys".
func countText(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return thousands(n) + " " + noun + "s"
}

// thousands writes a number with a comma between thousands.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
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
