package quote

import (
	"encoding/binary"
	"fmt"
)

// Parse reads a quote and refuses every byte it has no meaning for, so that
// Append writes exactly what was read. b is not kept. The certification data is
// taken as it is; see Certificates. Errors: those named Err in this package,
// wrapped.
func Parse(b []byte) (*Quote, error) {
	q := new(Quote)
	if err := q.parseHeader(b); err != nil {
		return nil, err
	}
	if len(b) < fixedSize {
		return nil, fmt.Errorf("%w: %d bytes, want at least %d", ErrTruncated, len(b), fixedSize)
	}
	var err error
	if q.Report, err = ParseReport(b[HeaderSize:SignedSize]); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	size, rest := binary.LittleEndian.Uint32(b[lengthOffset:]), b[fixedSize:]
	switch {
	case size < minSigSize:
		return nil, fmt.Errorf("%w: %d, want at least %d", ErrSignatureLength, size, minSigSize)
	case uint64(size) > uint64(len(rest)):
		return nil, fmt.Errorf("%w: %d bytes of signature data, want %d", ErrTruncated, len(rest), size)
	case uint64(size) < uint64(len(rest)):
		return nil, fmt.Errorf("%w: %d", ErrTrailing, uint64(len(rest))-uint64(size))
	}
	if err := q.parseSignatureData(rest); err != nil {
		return nil, err
	}
	return q, nil
}

func (q *Quote) parseHeader(b []byte) error {
	if len(b) > MaxSize {
		return fmt.Errorf("%w: %d bytes, limit %d", ErrTooLong, len(b), MaxSize)
	}
	if len(b) < HeaderSize {
		return fmt.Errorf("%w: %d bytes, the header has %d", ErrTruncated, len(b), HeaderSize)
	}
	version, keyType, tee := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])
	switch {
	case version > versionSGX && tee == teeTypeTDX: // said first, as it tells the user most
		return ErrTDX
	case version != versionSGX:
		return fmt.Errorf("%w: got %d", ErrVersion, version)
	case keyType != keyTypeP256:
		return fmt.Errorf("%w: got %d, want %d", ErrKeyType, keyType, keyTypeP256)
	case tee != 0: // reserved in version 3, zero means SGX in later ones
		return fmt.Errorf("%w: got %#x, want 0", ErrTEEType, tee)
	case [16]byte(b[12:28]) != intelVendor:
		return fmt.Errorf("%w: vendor id %x", ErrVendor, b[12:28])
	}
	q.Header = Header{
		QESVN:    binary.LittleEndian.Uint16(b[8:]),
		PCESVN:   binary.LittleEndian.Uint16(b[10:]),
		UserData: [20]byte(b[28:48]),
	}
	return nil
}

// parseSignatureData reads b, which has at least minSigSize bytes.
func (q *Quote) parseSignatureData(b []byte) (err error) {
	copy(q.Signature[:], b)
	copy(q.AttestationKey[:], b[keySize:])
	if q.QEReport, err = ParseReport(b[2*keySize : 2*keySize+ReportSize]); err != nil {
		return fmt.Errorf("report of the quoting enclave: %w", err)
	}
	copy(q.QESignature[:], b[2*keySize+ReportSize:])
	b = b[fixedSigSize:]

	auth := int(binary.LittleEndian.Uint16(b))
	if b = b[2:]; len(b) < auth+6 {
		return fmt.Errorf("%w: %d bytes, %d left", ErrAuthLength, auth, len(b))
	}
	q.AuthData = append([]byte(nil), b[:auth]...)
	b = b[auth:]
	certType, size := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint32(b[2:])
	if b = b[6:]; certType != certTypeChain {
		return fmt.Errorf("%w: type %d, want %d", ErrCertType, certType, certTypeChain)
	}
	if uint64(size) != uint64(len(b)) {
		return fmt.Errorf("%w: its length says %d, %d are there", ErrCertLength, size, len(b))
	}
	q.CertData = append([]byte(nil), b...)
	return nil
}

// Parts of a report that must be zero.
var reservedInReport = [...][2]int{{20, 32}, {96, 128}, {160, 192}, {262, 304}}

// ParseReport reads a report body of ReportSize bytes. Errors: ErrTruncated,
// ErrTrailing, and ErrReserved where a byte that has no meaning yet is not zero.
func ParseReport(b []byte) (r Report, err error) {
	switch {
	case len(b) < ReportSize:
		return r, fmt.Errorf("%w: report of %d bytes, want %d", ErrTruncated, len(b), ReportSize)
	case len(b) > ReportSize:
		return r, fmt.Errorf("%w: report of %d bytes, want %d", ErrTrailing, len(b), ReportSize)
	}
	for _, span := range reservedInReport {
		for i, v := range b[span[0]:span[1]] {
			if v != 0 {
				return r, fmt.Errorf("%w: byte %d of a report", ErrReserved, span[0]+i)
			}
		}
	}
	le := binary.LittleEndian
	return Report{
		CPUSVN:       [16]byte(b[0:]),
		MiscSelect:   le.Uint32(b[16:]),
		ISVExtProdID: [16]byte(b[32:]),
		Attributes:   Attributes{Flags: le.Uint64(b[48:]), XFRM: le.Uint64(b[56:])},
		MREnclave:    [32]byte(b[64:]),
		MRSigner:     [32]byte(b[128:]),
		ConfigID:     [64]byte(b[192:]),
		ISVProdID:    le.Uint16(b[256:]),
		ISVSVN:       le.Uint16(b[258:]),
		ConfigSVN:    le.Uint16(b[260:]),
		ISVFamilyID:  [16]byte(b[304:]),
		ReportData:   [64]byte(b[320:]),
	}, nil
}
