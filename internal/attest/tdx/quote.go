// Package tdx reads Intel TDX quotes of versions 4 and 5, says whether they are
// genuine (Verify) and whether they are wanted (Check).
//
// Certificates, revocation lists and signed documents are verified by package
// dcap/verify, as those of SGX are. Every quote of version 4 must please Google's
// go-tdx-guest as well: chain and signatures, as it does not read the collateral of
// every machine, nor version 5. Without collateral nothing is genuine, and nothing
// is ever fetched. The package holds no secrets; of TEE programs only those with the
// build tag tsm link it.
//
// Sources: Intel TDX DCAP Quote Generation Library and Quote Verification
// Library, appendices on quote formats 4 and 5; Intel TDX Module 1.5 ABI.
package tdx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// MaxSize is the longest quote that Parse reads, in bytes.
const MaxSize = quote.MaxSize

// Sizes in bytes, and the values of fixed fields.
const (
	headerSize   = 48
	body10Size   = 584 // TD report of TDX 1.0
	body15Size   = 648 // TD report of TDX 1.5
	keySize      = 64  // P-256 point X || Y, or signature r || s
	fixedSigSize = 2*keySize + 2 + 4
	certSize     = quote.ReportSize + keySize + 2 // fixed part of the certification data

	version4, version5   = 4, 5
	keyTypeP256          = 2
	teeTypeTDX           = 0x81
	bodyType10           = 2 // of version 5
	bodyType15           = 3
	certTypeQEReport     = 6
	certTypePCKChain     = 5
	descriptorSize       = 6 // of the body in version 5: type and size
	attributeDebug       = 0xff
	attributeMigratable  = 1 << 29
	tdxModuleVersionByte = 1 // of TEE_TCB_SVN
)

// Errors of Parse, wrapped with what was found.
var (
	ErrTooLong    = errors.New("quote is too long")
	ErrTruncated  = errors.New("quote is cut short")
	ErrVersion    = errors.New("quote version is not 4 or 5")
	ErrKeyType    = errors.New("attestation key type is not ECDSA-P256")
	ErrTEEType    = errors.New("TEE type is not TDX")
	ErrVendor     = errors.New("quoting enclave is not of Intel")
	ErrBodyType   = errors.New("body is not a TD report of TDX 1.0 or 1.5")
	ErrTrailing   = errors.New("bytes other than zero follow the quote")
	ErrCertType   = errors.New("certification data is not a quoting enclave's report with a PCK certificate chain")
	ErrCertLength = errors.New("lengths in the certification data do not add up")
)

var intelVendor = []byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}

// A Quote is a quote with an ECDSA-P256 attestation key and a PCK certificate
// chain.
type Quote struct {
	Version  uint16 // 4 or 5
	UserData [20]byte
	Report   Report

	envelope verify.Envelope
	unpadded []byte // the quote without the zeros that may follow it
}

// A Report is the body of a quote: what the TDX module says of a trust domain.
type Report struct {
	TEETCBSVN      [16]byte
	MRSEAM         [48]byte // measurement of the TDX module
	MRSignerSEAM   [48]byte // zero: Intel's module
	SEAMAttributes [8]byte
	Attributes     uint64
	XFAM           uint64
	MRTD           [48]byte // measurement of the initial contents
	MRConfigID     [48]byte // chosen by whoever starts the domain
	MROwner        [48]byte
	MROwnerConfig  [48]byte
	RTMR           [4][48]byte // measurements extended at run time
	ReportData     [64]byte    // chosen by the domain
	// What follows is of TDX 1.5 and else zero.
	TDX15       bool
	TEETCBSVN2  [16]byte // of the module that runs now
	MRServiceTD [48]byte
}

// Debug reports that the host can read the domain's memory: a bit of the byte
// that makes a domain untrusted is set.
func (r *Report) Debug() bool { return r.Attributes&attributeDebug != 0 }

// Migratable reports that a migration service may move the domain, with its
// memory, to another machine.
func (r *Report) Migratable() bool { return r.Attributes&attributeMigratable != 0 }

// Parse reads a quote. Zeros may follow it, as drivers hand out their whole
// buffer. b is not kept. Errors: those named Err above, and those of
// quote.ParseReport.
func Parse(b []byte) (*Quote, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrTooLong, len(b), MaxSize)
	}
	q := new(Quote)
	r := reader{rest: bytes.Clone(b)}
	whole := r.rest
	if err := q.header(r.take(headerSize)); err != nil {
		return nil, err
	}
	if err := q.body(&r); err != nil {
		return nil, err
	}
	signed := len(whole) - len(r.rest)
	size := r.uint32()
	data := reader{rest: r.take(int(min(size, MaxSize+1)))}
	if data.rest == nil {
		return nil, fmt.Errorf("%w: %d bytes of signature data, %d left", ErrTruncated, size, len(r.rest))
	}
	if len(bytes.Trim(r.rest, "\x00")) > 0 {
		return nil, fmt.Errorf("%w: %d", ErrTrailing, len(r.rest))
	}
	q.unpadded = whole[:len(whole)-len(r.rest)]
	q.envelope.Signed = whole[:signed]
	if err := q.signatureData(&data); err != nil {
		return nil, err
	}
	q.envelope.TCBInfoID, q.envelope.IdentityID = "TDX", "TD_QE"
	return q, nil
}

// header reads the header, or nil if it is cut short.
func (q *Quote) header(b []byte) error {
	if b == nil {
		return fmt.Errorf("%w: it has no header", ErrTruncated)
	}
	q.Version = binary.LittleEndian.Uint16(b)
	keyType, tee := binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])
	switch {
	case q.Version != version4 && q.Version != version5:
		return fmt.Errorf("%w: got %d", ErrVersion, q.Version)
	case keyType != keyTypeP256:
		return fmt.Errorf("%w: got %d, want %d", ErrKeyType, keyType, keyTypeP256)
	case tee != teeTypeTDX:
		return fmt.Errorf("%w: got %#x, want %#x", ErrTEEType, tee, teeTypeTDX)
	case !bytes.Equal(b[12:28], intelVendor):
		return fmt.Errorf("%w: vendor id %x", ErrVendor, b[12:28])
	}
	q.UserData = [20]byte(b[28:])
	return nil
}

// body reads the TD report, and in version 5 its type and size before it.
func (q *Quote) body(r *reader) error {
	size := body10Size
	if q.Version == version5 {
		d := r.take(descriptorSize)
		if d == nil {
			return fmt.Errorf("%w: its body has no type", ErrTruncated)
		}
		kind, stated := binary.LittleEndian.Uint16(d), binary.LittleEndian.Uint32(d[2:])
		if q.Report.TDX15 = kind == bodyType15; q.Report.TDX15 {
			size = body15Size
		}
		if kind != bodyType10 && kind != bodyType15 || stated != uint32(size) {
			return fmt.Errorf("%w: type %d of %d bytes", ErrBodyType, kind, stated)
		}
	}
	b := r.take(size)
	if b == nil {
		return fmt.Errorf("%w: %d bytes of its body, want %d", ErrTruncated, len(r.rest), size)
	}
	q.Report.read(reader{rest: b})
	return nil
}

// read fills r from a body of the right size.
func (r *Report) read(b reader) {
	b.copy(r.TEETCBSVN[:], r.MRSEAM[:], r.MRSignerSEAM[:], r.SEAMAttributes[:])
	r.Attributes, r.XFAM = b.uint64(), b.uint64()
	b.copy(r.MRTD[:], r.MRConfigID[:], r.MROwner[:], r.MROwnerConfig[:])
	b.copy(r.RTMR[0][:], r.RTMR[1][:], r.RTMR[2][:], r.RTMR[3][:], r.ReportData[:])
	if r.TDX15 {
		b.copy(r.TEETCBSVN2[:], r.MRServiceTD[:])
	}
}

// signatureData reads the signature, the attestation key and what vouches for
// the key.
func (q *Quote) signatureData(r *reader) (err error) {
	e := &q.envelope
	if len(r.rest) < fixedSigSize+certSize+2+4 {
		return fmt.Errorf("%w: %d bytes of signature data", ErrTruncated, len(r.rest))
	}
	r.copy(e.Signature[:], e.AttestationKey[:])
	kind, size := r.uint16(), r.uint32()
	switch {
	case kind != certTypeQEReport:
		return fmt.Errorf("%w: type %d, want %d", ErrCertType, kind, certTypeQEReport)
	case uint64(size) != uint64(len(r.rest)):
		return fmt.Errorf("%w: %d bytes, %d are there", ErrCertLength, size, len(r.rest))
	}
	if e.QEReport, err = quote.ParseReport(r.take(quote.ReportSize)); err != nil {
		return fmt.Errorf("report of the quoting enclave: %w", err)
	}
	r.copy(e.QESignature[:])
	auth := int(r.uint16())
	if e.AuthData = r.take(auth); e.AuthData == nil || len(r.rest) < 2+4 {
		return fmt.Errorf("%w: %d bytes of authentication data", ErrCertLength, auth)
	}
	kind, size = r.uint16(), r.uint32()
	switch {
	case kind != certTypePCKChain:
		return fmt.Errorf("%w: inner type %d, want %d", ErrCertType, kind, certTypePCKChain)
	case uint64(size) != uint64(len(r.rest)):
		return fmt.Errorf("%w: a chain of %d bytes, %d are there", ErrCertLength, size, len(r.rest))
	}
	e.CertData = r.rest
	return nil
}

// Certificates decodes the PCK certificate chain, leaf first. Errors: those of
// quote.DecodeChain.
func (q *Quote) Certificates() ([][]byte, error) { return quote.DecodeChain(q.envelope.CertData, 3) }

// A reader takes little-endian fields off the front of a slice. Its methods for
// numbers and arrays return zeros where too little is left.
type reader struct{ rest []byte }

// take returns the next n bytes, or nil if so many are not left.
func (r *reader) take(n int) []byte {
	if n > len(r.rest) {
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) copy(fields ...[]byte) {
	for _, f := range fields {
		copy(f, r.take(len(f)))
	}
}

func (r *reader) uint16() uint16 {
	var b [2]byte
	r.copy(b[:])
	return binary.LittleEndian.Uint16(b[:])
}

func (r *reader) uint32() uint32 {
	var b [4]byte
	r.copy(b[:])
	return binary.LittleEndian.Uint32(b[:])
}

func (r *reader) uint64() uint64 {
	var b [8]byte
	r.copy(b[:])
	return binary.LittleEndian.Uint64(b[:])
}
