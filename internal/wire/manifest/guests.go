package manifest

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// A Register is a SHA-384 that TDX or SEV-SNP measured, in files 96 hex digits.
type Register [48]byte

// String returns the register in hex.
func (r Register) String() string { return hex.EncodeToString(r[:]) }

// MarshalText implements encoding.TextMarshaler.
func (r Register) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, r[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Register) UnmarshalText(b []byte) error { return unhex(r[:], b) }

// A TDXGuest is a trust domain: all of its measurements, exactly. A register that
// is not named is zeros, as those are that nothing was extended into.
type TDXGuest struct {
	MRTD       Register `json:"mrtd"`
	RTMR0      Register `json:"rtmr0,omitzero"`
	RTMR1      Register `json:"rtmr1,omitzero"`
	RTMR2      Register `json:"rtmr2,omitzero"`
	RTMR3      Register `json:"rtmr3,omitzero"`
	MRConfigID Register `json:"mrconfigid,omitzero"`
}

// RTMR returns the registers that are extended at run time, in their order.
func (g *TDXGuest) RTMR() [4]Register { return [4]Register{g.RTMR0, g.RTMR1, g.RTMR2, g.RTMR3} }

// An SNPGuest is a guest of SEV-SNP: what was launched, and what its host gave it
// then, exactly.
type SNPGuest struct {
	Measurement Register `json:"measurement"`
	HostData    Hash     `json:"hostData,omitzero"`
}

// A ChipID is the number of a processor of AMD, in files 128 hex digits.
type ChipID [64]byte

// String returns the number in hex.
func (c ChipID) String() string { return hex.EncodeToString(c[:]) }

// MarshalText implements encoding.TextMarshaler.
func (c ChipID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, c[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *ChipID) UnmarshalText(b []byte) error { return unhex(c[:], b) }

// An SNPTCB is the least TCB of SEV-SNP chips, each level by itself.
type SNPTCB struct {
	Bootloader uint8 `json:"bootloader"`
	TEE        uint8 `json:"tee"`
	SNP        uint8 `json:"snp"`
	Microcode  uint8 `json:"microcode"`
}

// String writes the levels for people.
func (t SNPTCB) String() string {
	return fmt.Sprintf("bootloader %d, TEE %d, SNP %d, microcode %d", t.Bootloader, t.TEE, t.SNP, t.Microcode)
}

// IsGuest reports that the code is a guest, which is measured as a whole.
func (c *Code) IsGuest() bool { return c.TDX != TDXGuest{} || c.SNP != SNPGuest{} }

// Program is what the code is, without its role, for people.
func (c *Code) Program() string {
	switch {
	case c.MREnclave != Hash{}:
		return "with measurement " + c.MREnclave.String()
	case c.TDX != TDXGuest{}:
		text := "in the TDX guest with MRTD " + c.TDX.MRTD.String()
		for i, r := range c.TDX.RTMR() {
			text += fmt.Sprintf(", RTMR%d %s", i, r)
		}
		return text + ", MRCONFIGID " + c.TDX.MRConfigID.String()
	case c.SNP != SNPGuest{}:
		return fmt.Sprintf("in the SEV-SNP guest with measurement %s, host data %s", c.SNP.Measurement, c.SNP.HostData)
	}
	return fmt.Sprintf("of signer %s, product %d from version %d on", c.MRSigner, c.Product, c.MinSVN)
}

// Number is what names the machine, for people.
func (p *Platform) Number() string {
	switch {
	case p.Serial != "":
		return "PCK serial " + p.Serial
	case p.Chip != ChipID{}:
		return "chip id " + p.Chip.String()
	}
	return "PPID " + p.PPID.String()
}

// validateGuest checks what an entry says of a guest.
func (c *Code) validateGuest() error {
	switch {
	case c.TDX != TDXGuest{} && c.TDX.MRTD == Register{}:
		return errors.New("a TDX guest has an mrtd")
	case c.SNP != SNPGuest{} && c.SNP.Measurement == Register{}:
		return errors.New("an SEV-SNP guest has a measurement")
	}
	return nil
}

// validateSNP has a least TCB where there are guests of SEV-SNP.
func (s *Settings) validateSNP() error {
	for i := range s.Code {
		if (s.Code[i].SNP != SNPGuest{}) && s.SNPMinTCB == (SNPTCB{}) {
			return fmt.Errorf("code %d: an SEV-SNP guest without snpMinTcb, which says what its firmware must be", i+1)
		}
	}
	return nil
}
