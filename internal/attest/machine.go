package attest

import (
	"crypto/sha256"
	"fmt"
)

// A Machine is what genuine evidence names of the machine that it comes from: PPID
// and Serial of Intel's, Chip of AMD's. The rest is zero.
type Machine struct {
	PPID   [16]byte
	Serial string   // of its PCK certificate, lower-case hex; changes with its TCB
	Chip   [64]byte // CHIP_ID of SEV-SNP
}

// Same reports that two machines are one, at whatever TCB.
func (m Machine) Same(n Machine) bool { return m.PPID == n.PPID && m.Chip == n.Chip }

// String names the machine for logs and errors.
func (m Machine) String() string {
	if m.Chip != [64]byte{} {
		return fmt.Sprintf("chip id %x", m.Chip)
	}
	return fmt.Sprintf("PPID %x, PCK serial %s", m.PPID, m.Serial)
}

// Labels of the measurements of guests.
const (
	tdxLabel = "ehsm/tdx-measurement/v1\x00"
	snpLabel = "ehsm/snp-measurement/v1\x00"
)

// TDXMeasurement is the one measurement that stands for all of a trust domain:
// SHA-256 over a label, MRTD, MRCONFIGID and RTMR0 to RTMR3.
func TDXMeasurement(mrtd, mrConfigID [48]byte, rtmr [4][48]byte) [32]byte {
	b := append([]byte(tdxLabel), mrtd[:]...)
	b = append(b, mrConfigID[:]...)
	for i := range rtmr {
		b = append(b, rtmr[i][:]...)
	}
	return sha256.Sum256(b)
}

// SNPMeasurement is the one measurement that stands for all of a guest of SEV-SNP:
// SHA-256 over a label, MEASUREMENT and HOST_DATA.
func SNPMeasurement(measurement [48]byte, hostData [32]byte) [32]byte {
	b := append([]byte(snpLabel), measurement[:]...)
	return sha256.Sum256(append(b, hostData[:]...))
}
