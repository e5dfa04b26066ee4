// Package snp reads AMD SEV-SNP attestation reports, says whether they are
// genuine (Verify) and whether they are wanted (Check).
//
// Google's go-sev-guest verifies the certificate of the chip and the signature
// of the report; it is given certificates from memory and never fetches any.
// Around it the package checks what the library leaves open: exact length and
// encoding, the root by equality, revocation, chip id and TCB of the certificate.
// It holds no secrets; of TEE programs only those with the build tag tsm link it.
//
// Source: AMD SEV Secure Nested Paging Firmware ABI Specification (56860), table
// ATTESTATION_REPORT; AMD VCEK Certificate and KDS Interface Specification (57230).
package snp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-sev-guest/abi"
	pb "github.com/google/go-sev-guest/proto/sevsnp"
)

// ReportSize is the length of a report in bytes.
const ReportSize = 1184

// Errors of Parse, wrapped with what was found.
var (
	ErrLength    = errors.New("report has the wrong length")
	ErrMalformed = errors.New("report is malformed")
	ErrAlgorithm = errors.New("report is not signed with ECDSA on P-384 and SHA-384")
	ErrSigner    = errors.New("report is not signed by a VCEK")
)

const (
	algorithmP384   = 1
	policyMigration = 1 << 18 // a migration agent may be bound
	policyDebug     = 1 << 19
)

// A TCB is a vector of security patch levels of the chips named Milan and Genoa.
type TCB struct {
	Bootloader, TEE, SNP, Microcode uint8
}

// tcbOf reads the eight bytes of a TCB_VERSION.
func tcbOf(v uint64) TCB {
	return TCB{Bootloader: uint8(v), TEE: uint8(v >> 8), SNP: uint8(v >> 48), Microcode: uint8(v >> 56)}
}

// Meets reports that each level is at least that of least.
func (t TCB) Meets(least TCB) bool {
	return t.Bootloader >= least.Bootloader && t.TEE >= least.TEE && t.SNP >= least.SNP && t.Microcode >= least.Microcode
}

// String writes the levels for errors and people.
func (t TCB) String() string {
	return fmt.Sprintf("bootloader %d, TEE %d, SNP %d, microcode %d", t.Bootloader, t.TEE, t.SNP, t.Microcode)
}

// A Report is what the chip's firmware says of a guest.
type Report struct {
	Version     uint32
	GuestSVN    uint32
	Policy      uint64 // under which the guest was launched
	FamilyID    [16]byte
	ImageID     [16]byte
	VMPL        uint32 // privilege level of who asked for the report; 0 is the highest
	ReportData  [64]byte
	Measurement [48]byte // of the guest's initial contents
	HostData    [32]byte
	ChipID      [64]byte
	// ReportedTCB is what the certificate of the chip is for; CurrentTCB is what
	// runs, CommittedTCB what cannot be undone.
	ReportedTCB, CurrentTCB, CommittedTCB, LaunchTCB TCB

	parsed *pb.Report
}

// Debug reports that the host may read the guest's memory.
func (r *Report) Debug() bool { return r.Policy&policyDebug != 0 }

// Migratable reports that a migration agent may move the guest to another
// machine.
func (r *Report) Migratable() bool { return r.Policy&policyMigration != 0 }

// Parse reads a report of ReportSize bytes, in its one encoding, that a VCEK
// signed. b is not kept. Errors: ErrLength, ErrMalformed, ErrAlgorithm, and
// ErrSigner: a VLEK stands for a provider and not for a chip.
func Parse(b []byte) (*Report, error) {
	if len(b) != ReportSize {
		return nil, fmt.Errorf("%w: %d bytes, want %d", ErrLength, len(b), ReportSize)
	}
	if algorithm := binary.LittleEndian.Uint32(b[0x34:]); algorithm != algorithmP384 {
		return nil, fmt.Errorf("%w: algorithm %d", ErrAlgorithm, algorithm)
	}
	if err := abi.ValidateReportFormat(b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	p, err := abi.ReportToProto(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	// The signature is verified over what the library writes.
	if again, err := abi.ReportToAbiBytes(p); err != nil || !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%w: a reserved byte is not zero", ErrMalformed)
	}
	info, err := abi.ParseSignerInfo(p.GetSignerInfo())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if info.SigningKey != abi.VcekReportSigner {
		return nil, fmt.Errorf("%w: by a %v", ErrSigner, info.SigningKey)
	}
	return &Report{
		Version: p.GetVersion(), GuestSVN: p.GetGuestSvn(), Policy: p.GetPolicy(), VMPL: p.GetVmpl(),
		FamilyID: [16]byte(p.GetFamilyId()), ImageID: [16]byte(p.GetImageId()),
		ReportData: [64]byte(p.GetReportData()), Measurement: [48]byte(p.GetMeasurement()),
		HostData: [32]byte(p.GetHostData()), ChipID: [64]byte(p.GetChipId()),
		ReportedTCB: tcbOf(p.GetReportedTcb()), CurrentTCB: tcbOf(p.GetCurrentTcb()),
		CommittedTCB: tcbOf(p.GetCommittedTcb()), LaunchTCB: tcbOf(p.GetLaunchTcb()),
		parsed: p,
	}, nil
}
