package tsm

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// Layout of TDX quotes, little endian. Source: Intel TDX DCAP Quoting Library
// API, appendix A.3.
const (
	headerSize = 48
	teeTDX     = 0x81
	keyP256    = 2
	body10Size = 584 // TD report of TDX 1.0
	body15Size = 648 // of TDX 1.5
	body10Type = 2
	body15Type = 3

	attributesOffset = 120 // in the body; bit 0 is DEBUG
	mrtdOffset       = 136 // MRTD, MRCONFIGID
	rtmrOffset       = 328 // RTMR0 to RTMR3
	tdDataOffset     = 520
	registerSize     = 48
)

// Layout of SEV-SNP attestation reports, little endian. Source: AMD SEV Secure
// Nested Paging Firmware ABI Specification, table 23.
const (
	snpSize        = 1184
	policyOffset   = 8
	vmplOffset     = 48
	snpDataOffset  = 80
	measureOffset  = 144 // MEASUREMENT (48), HOST_DATA (32)
	measureEnd     = 224
	policyDebugBit = 19
)

// claims is what evidence says of this guest. They are not verified.
type claims struct {
	evidence    attest.Evidence
	measurement [32]byte
	debug       bool
	reportData  [64]byte
}

// parseTDX reads a quote of version 4 or 5. Errors: tee.ErrEvidence.
func parseTDX(b []byte) (claims, error) {
	refuse := func(format string, args ...any) (claims, error) {
		return claims{}, fmt.Errorf("%w: TDX quote: %s", tee.ErrEvidence, fmt.Sprintf(format, args...))
	}
	le := binary.LittleEndian
	if len(b) < headerSize+6 || len(b) > attest.MaxQuote {
		return refuse("%d bytes", len(b))
	}
	version, keyType, kind := le.Uint16(b), le.Uint16(b[2:]), le.Uint32(b[4:])
	if kind != teeTDX || keyType != keyP256 {
		return refuse("TEE type %#x and key type %d, want %#x and %d", kind, keyType, teeTDX, keyP256)
	}
	e := attest.Evidence{Kind: attest.TDXQuote4}
	start, size := headerSize, body10Size
	switch version {
	case 4:
	case 5:
		e.Kind, start = attest.TDXQuote5, headerSize+6
		bodyType, bodySize := le.Uint16(b[headerSize:]), le.Uint32(b[headerSize+2:])
		switch {
		case bodyType == body10Type && bodySize == body10Size:
		case bodyType == body15Type && bodySize == body15Size:
			size = body15Size
		default:
			return refuse("body of type %d with %d bytes", bodyType, bodySize)
		}
	default:
		return refuse("version %d", version)
	}
	end := start + size
	if len(b) < end+4 {
		return refuse("cut to %d bytes", len(b))
	}
	signature, rest := uint64(le.Uint32(b[end:])), b[end+4:]
	if signature > uint64(len(rest)) {
		return refuse("%d bytes of signature data, want %d", len(rest), signature)
	}
	// Some hosts answer with their whole buffer.
	if len(bytes.Trim(rest[signature:], "\x00")) > 0 {
		return refuse("bytes follow the signature data")
	}
	e.Quote = b[:uint64(end)+4+signature]
	body := b[start:end]
	return claims{
		evidence: e,
		measurement: attest.TDXMeasurement(register(body, mrtdOffset), register(body, mrtdOffset+registerSize), [4][48]byte{
			register(body, rtmrOffset), register(body, rtmrOffset+registerSize),
			register(body, rtmrOffset+2*registerSize), register(body, rtmrOffset+3*registerSize),
		}),
		debug:      body[attributesOffset]&1 != 0,
		reportData: [64]byte(body[tdDataOffset:]),
	}, nil
}

// parseSNP reads a report of a guest at VMPL 0. Errors: tee.ErrEvidence.
func parseSNP(b []byte) (claims, error) {
	le := binary.LittleEndian
	if len(b) != snpSize {
		return claims{}, fmt.Errorf("%w: SEV-SNP report of %d bytes, want %d", tee.ErrEvidence, len(b), snpSize)
	}
	if vmpl := le.Uint32(b[vmplOffset:]); vmpl != 0 {
		return claims{}, fmt.Errorf("%w: SEV-SNP report of privilege level %d, want 0", tee.ErrEvidence, vmpl)
	}
	return claims{
		evidence:    attest.Evidence{Kind: attest.SNPReport, Quote: b},
		measurement: attest.SNPMeasurement(register(b, measureOffset), [32]byte(b[measureOffset+registerSize:measureEnd])),
		debug:       le.Uint64(b[policyOffset:])>>policyDebugBit&1 != 0,
		reportData:  [64]byte(b[snpDataOffset:]),
	}, nil
}

// register reads one of 48 bytes.
func register(b []byte, at int) [registerSize]byte { return [registerSize]byte(b[at:]) }
