package sim

import (
	"crypto/aes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sgx"
)

// Layouts: Intel SDM volume 3D, TARGETINFO and REPORT; little endian.
const (
	targetSize = 512     // bytes of TARGETINFO
	targetUsed = 32 + 16 // measurement and attributes; the rest is zero
	keyIDSize  = 32
	reportSize = quote.ReportSize + keyIDSize + aes.BlockSize

	reportKeyLabel = "ehsm/sim-report/v1\x00"
)

// xfrm is the XFRM of every program: x87, SSE, AVX.
const xfrm = 7

func (m *Machine) attributes() quote.Attributes {
	a := quote.Attributes{Flags: quote.FlagInit | quote.FlagMode64, XFRM: xfrm}
	if m.id.Debug {
		a.Flags |= quote.FlagDebug
	}
	return a
}

// body is what quotes and local reports say of the program.
func (m *Machine) body(reportData [64]byte) quote.Report {
	return quote.Report{
		CPUSVN:     m.p.platform.CPUSVN,
		Attributes: m.attributes(),
		MREnclave:  m.id.Measurement,
		MRSigner:   m.id.Signer,
		ISVProdID:  m.id.Product,
		ISVSVN:     m.id.SVN,
		ReportData: reportData,
	}
}

// Target implements tee.LocalReporter: a TARGETINFO of 512 bytes, with
// measurement and attributes.
func (m *Machine) Target() ([]byte, error) {
	a := m.attributes()
	b := make([]byte, 0, targetSize)
	b = append(b, m.id.Measurement[:]...)
	b = binary.LittleEndian.AppendUint64(b, a.Flags)
	b = binary.LittleEndian.AppendUint64(b, a.XFRM)
	return b[:targetSize], nil
}

// Report implements tee.LocalReporter, as EREPORT does: 432 bytes, the body of a
// quote, KEYID, and AES-128-CMAC over the body under a key that only the target
// can have. Errors: tee.ErrEvidence where target is none.
func (m *Machine) Report(target []byte, reportData [64]byte) ([]byte, error) {
	if len(target) != targetSize {
		return nil, fmt.Errorf("%w: target of %d bytes, want %d", tee.ErrEvidence, len(target), targetSize)
	}
	for i, v := range target[targetUsed:] {
		if v != 0 {
			return nil, fmt.Errorf("%w: byte %d of the target is not zero", tee.ErrEvidence, targetUsed+i)
		}
	}
	body := m.body(reportData)
	report := body.Append(nil)
	var keyID [32]byte
	rand.Read(keyID[:]) // never fails
	mac, err := m.p.reportMAC(target, keyID, report)
	if err != nil {
		return nil, err
	}
	report = append(report, keyID[:]...)
	return append(report, mac[:]...), nil
}

// VerifyReport implements tee.LocalReporter.
func (m *Machine) VerifyReport(report []byte) (tee.Identity, [64]byte, error) {
	refuse := func(err error) (tee.Identity, [64]byte, error) { return tee.Identity{}, [64]byte{}, err }
	if len(report) != reportSize {
		return refuse(fmt.Errorf("%w: report of %d bytes, want %d", tee.ErrEvidence, len(report), reportSize))
	}
	target, err := m.Target()
	if err != nil {
		return refuse(err)
	}
	body, tail := report[:quote.ReportSize], report[quote.ReportSize:]
	want, err := m.p.reportMAC(target, [32]byte(tail), body)
	if err != nil {
		return refuse(err)
	}
	if subtle.ConstantTimeCompare(want[:], tail[keyIDSize:]) != 1 {
		return refuse(fmt.Errorf("%w: the report is not for this program on this machine", tee.ErrEvidence))
	}
	r, err := quote.ParseReport(body)
	if err != nil {
		return refuse(fmt.Errorf("%w: %w", tee.ErrEvidence, err))
	}
	return sgx.Identity(r), r.ReportData, nil
}

// reportMAC is the MAC of a report body for a target.
func (p *Processor) reportMAC(target []byte, keyID [32]byte, body []byte) ([16]byte, error) {
	key, err := hkdf.Key(sha256.New, p.fuse.Expose(), keyID[:], reportKeyLabel+string(target[:targetUsed]), 16)
	if err != nil {
		return [16]byte{}, fmt.Errorf("derive report key: %w", err)
	}
	defer clear(key)
	return cmac([16]byte(key), body), nil
}
