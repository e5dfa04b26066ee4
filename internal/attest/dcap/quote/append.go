package quote

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Append appends the encoding of q, which Parse reads. Errors: ErrTooLong, and
// ErrAuthLength where AuthData has more than 65535 bytes.
func (q *Quote) Append(dst []byte) ([]byte, error) {
	if len(q.AuthData) > math.MaxUint16 {
		return nil, fmt.Errorf("%w: %d bytes", ErrAuthLength, len(q.AuthData))
	}
	size := minSigSize + len(q.AuthData) + len(q.CertData)
	if fixedSize+size > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrTooLong, fixedSize+size, MaxSize)
	}
	le := binary.LittleEndian
	dst = q.AppendSigned(dst)
	dst = le.AppendUint32(dst, uint32(size))
	dst = append(dst, q.Signature[:]...)
	dst = append(dst, q.AttestationKey[:]...)
	dst = q.QEReport.Append(dst)
	dst = append(dst, q.QESignature[:]...)
	dst = le.AppendUint16(dst, uint16(len(q.AuthData)))
	dst = append(dst, q.AuthData...)
	dst = le.AppendUint16(dst, certTypeChain)
	dst = le.AppendUint32(dst, uint32(len(q.CertData)))
	return append(dst, q.CertData...), nil
}

// AppendSigned appends the SignedSize bytes that Signature is over.
func (q *Quote) AppendSigned(dst []byte) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint16(dst, versionSGX)
	dst = le.AppendUint16(dst, keyTypeP256)
	dst = le.AppendUint32(dst, 0)
	dst = le.AppendUint16(dst, q.Header.QESVN)
	dst = le.AppendUint16(dst, q.Header.PCESVN)
	dst = append(dst, intelVendor[:]...)
	dst = append(dst, q.Header.UserData[:]...)
	return q.Report.Append(dst)
}

// Append appends the ReportSize bytes of r.
func (r *Report) Append(dst []byte) []byte {
	le := binary.LittleEndian
	dst = append(dst, r.CPUSVN[:]...)
	dst = le.AppendUint32(dst, r.MiscSelect)
	dst = append(dst, make([]byte, 12)...)
	dst = append(dst, r.ISVExtProdID[:]...)
	dst = le.AppendUint64(dst, r.Attributes.Flags)
	dst = le.AppendUint64(dst, r.Attributes.XFRM)
	dst = append(dst, r.MREnclave[:]...)
	dst = append(dst, make([]byte, 32)...)
	dst = append(dst, r.MRSigner[:]...)
	dst = append(dst, make([]byte, 32)...)
	dst = append(dst, r.ConfigID[:]...)
	dst = le.AppendUint16(dst, r.ISVProdID)
	dst = le.AppendUint16(dst, r.ISVSVN)
	dst = le.AppendUint16(dst, r.ConfigSVN)
	dst = append(dst, make([]byte, 42)...)
	dst = append(dst, r.ISVFamilyID[:]...)
	return append(dst, r.ReportData[:]...)
}
