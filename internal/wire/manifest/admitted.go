package manifest

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"unicode"

	"github.com/ehsm-kms/ehsm/api"
)

// The roles of programs in a domain.
const (
	RoleCore       = api.RoleCore
	RoleDKeyCache  = "dkeycache"
	RoleDKeyServer = "dkeyserver"
)

// Roles lists the roles.
func Roles() []string { return []string{RoleCore, RoleDKeyCache, RoleDKeyServer} }

const (
	maxCode      = 64
	maxPlatforms = 4096
	maxName      = 64 // bytes of a platform's name
)

// Code admits a program to a role: an enclave by its measurement, or by signer,
// product and least version; or whatever a guest runs, by the guest's measurements.
type Code struct {
	Role      string   `json:"role"`
	MREnclave Hash     `json:"mrenclave,omitzero"`
	MRSigner  Hash     `json:"mrsigner,omitzero"`
	Product   uint16   `json:"productId,omitempty"`
	MinSVN    uint16   `json:"minSvn,omitempty"`
	TDX       TDXGuest `json:"tdx,omitzero"`
	SNP       SNPGuest `json:"snp,omitzero"`
}

// same reports whether one program can satisfy both. Programs of one guest may be
// in several roles: the guest speaks for all that it runs.
func (c *Code) same(d *Code) bool {
	a, b := *c, *d
	a.MinSVN, b.MinSVN = 0, 0
	if !c.IsGuest() {
		a.Role, b.Role = "", ""
	}
	return a == b
}

// PPID is the number of a machine, in files 32 hex digits.
type PPID [16]byte

// String returns the number in hex.
func (p PPID) String() string { return hex.EncodeToString(p[:]) }

// MarshalText implements encoding.TextMarshaler.
func (p PPID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, p[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *PPID) UnmarshalText(b []byte) error { return unhex(p[:], b) }

// A Platform is a machine, named by one of three numbers.
type Platform struct {
	Name   string `json:"name"` // for people, 1 to 64 printable characters
	PPID   PPID   `json:"ppid,omitzero"`
	Serial string `json:"pckSerial,omitempty"` // of its PCK certificate, lower-case hex; changes with its TCB
	Chip   ChipID `json:"chipId,omitzero"`     // of a processor of AMD
}

func (s *Settings) validateCode() error {
	if len(s.Code) > maxCode {
		return fmt.Errorf("code has %d entries, limit %d", len(s.Code), maxCode)
	}
	for i := range s.Code {
		c := &s.Code[i]
		measured, signed := c.MREnclave != Hash{}, c.MRSigner != Hash{}
		identities := 0
		for _, has := range []bool{measured, signed, c.TDX != TDXGuest{}, c.SNP != SNPGuest{}} {
			if has {
				identities++
			}
		}
		switch {
		case !slices.Contains(Roles(), c.Role):
			return fmt.Errorf("code %d: role %q is unknown", i+1, c.Role)
		case identities != 1:
			return fmt.Errorf("code %d: want either mrenclave, or mrsigner with productId and minSvn, or tdx, or snp", i+1)
		case !signed && (c.Product != 0 || c.MinSVN != 0):
			return fmt.Errorf("code %d: a measurement names one program; productId and minSvn say nothing", i+1)
		case signed && c.Product == 0:
			return fmt.Errorf("code %d: mrsigner without productId, by which the roles are told apart", i+1)
		}
		if err := c.validateGuest(); err != nil {
			return fmt.Errorf("code %d: %w", i+1, err)
		}
		if j := slices.IndexFunc(s.Code[:i], func(d Code) bool { return c.same(&d) }); j >= 0 {
			return fmt.Errorf("code %d: it is the same as %d; each program has one role", i+1, j+1)
		}
	}
	return s.validateSNP()
}

func (s *Settings) validatePlatforms() error {
	switch {
	case len(s.Platforms) > maxPlatforms:
		return fmt.Errorf("%d platforms, limit %d", len(s.Platforms), maxPlatforms)
	case len(s.Platforms) > 0 && s.AnyPlatform:
		return errors.New("anyPlatform makes the list of platforms meaningless; remove one of them")
	}
	names, numbers := map[string]bool{}, map[Platform]bool{}
	for _, p := range s.Platforms {
		number := Platform{PPID: p.PPID, Serial: p.Serial, Chip: p.Chip}
		given := 0
		for _, has := range []bool{p.PPID != PPID{}, p.Serial != "", p.Chip != ChipID{}} {
			if has {
				given++
			}
		}
		switch {
		case p.Name == "" || len(p.Name) > maxName || !printable(p.Name):
			return fmt.Errorf("a platform has the name %q, want 1 to %d printable characters", p.Name, maxName)
		case given != 1:
			return fmt.Errorf("platform %q: want one of ppid, pckSerial and chipId", p.Name)
		case p.Serial != "" && !isSerial(p.Serial):
			return fmt.Errorf("platform %q: pckSerial %q, want 1 to 20 bytes in hex without leading zeros", p.Name, p.Serial)
		case names[p.Name] || numbers[number]:
			return fmt.Errorf("platform %q comes twice", p.Name)
		}
		names[p.Name], numbers[number] = true, true
	}
	return nil
}

func isSerial(text string) bool {
	b, err := hex.DecodeString(text)
	return err == nil && len(b) > 0 && len(b) <= 20 && b[0] != 0 && hex.EncodeToString(b) == text
}

// printable reports whether a text shows as what it is: who is about to sign sees
// no control characters, and none that turn the direction of writing.
func printable(s string) bool {
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
