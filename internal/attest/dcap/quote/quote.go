// Package quote reads and writes the bytes of Intel SGX quotes of version 3 with
// an ECDSA-P256 attestation key. It checks shape only: nothing it returns is
// genuine before package verify has said so.
//
// It holds no secrets. Layout: Intel SGX ECDSA Quote Library Reference for DCAP,
// appendix A.4; integers are little endian.
package quote

import "errors"

// Sizes in bytes.
const (
	HeaderSize = 48
	ReportSize = 384
	// SignedSize is the length of the part under the quote's signature: the
	// header and the report, which start the quote.
	SignedSize = HeaderSize + ReportSize
	// MaxSize is the longest quote that Parse reads. Real ones have less than 5 KiB.
	MaxSize = 16 << 10

	keySize       = 64 // P-256 point X || Y, or signature r || s
	lengthOffset  = SignedSize
	fixedSize     = lengthOffset + 4 // through the length of the signature data
	fixedSigSize  = keySize + keySize + ReportSize + keySize
	minSigSize    = fixedSigSize + 2 + 2 + 4 // with the two length fields and the type
	teeTypeTDX    = 0x81
	versionSGX    = 3
	keyTypeP256   = 2
	certTypeChain = 5
)

// Errors of Parse, one for each way in which a quote is not what it should be.
var (
	ErrTooLong         = errors.New("quote is too long")
	ErrTruncated       = errors.New("quote is cut short")
	ErrTDX             = errors.New("TDX quote: not built in")
	ErrVersion         = errors.New("quote version is not 3")
	ErrTEEType         = errors.New("TEE type is not SGX")
	ErrKeyType         = errors.New("attestation key type is not ECDSA-P256")
	ErrVendor          = errors.New("quoting enclave is not of Intel")
	ErrReserved        = errors.New("reserved bytes are not zero")
	ErrSignatureLength = errors.New("length of the signature data is too small")
	ErrTrailing        = errors.New("bytes follow the quote")
	ErrAuthLength      = errors.New("authentication data does not fit into the signature data")
	ErrCertType        = errors.New("certification data is not a PCK certificate chain")
	ErrCertLength      = errors.New("certification data does not fill the signature data")
)

// intelVendor is the vendor id of Intel's quoting enclaves,
// 939A7233-F79C-4CA9-940A-0DB3957F0607.
var intelVendor = [16]byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}

// A Quote is a quote of version 3. Version, key type and vendor are fixed and
// not kept.
type Quote struct {
	Header         Header
	Report         Report   // of the enclave that asked for the quote
	Signature      [64]byte // r || s over the first SignedSize bytes, by AttestationKey
	AttestationKey [64]byte // P-256 point, X || Y
	QEReport       Report   // of the quoting enclave
	QESignature    [64]byte // r || s over the encoding of QEReport, by the PCK
	AuthData       []byte   // at most 65535 bytes, hashed into QEReport.ReportData
	CertData       []byte   // PCK chain in PEM, leaf first; see DecodeChain
}

// A Header is the part of a quote's header that varies.
type Header struct {
	QESVN    uint16
	PCESVN   uint16
	UserData [20]byte // the first 16 bytes identify the platform to its owner
}

// A Report is the body of an SGX report.
type Report struct {
	CPUSVN       [16]byte
	MiscSelect   uint32
	ISVExtProdID [16]byte
	Attributes   Attributes
	MREnclave    [32]byte // measurement of the enclave's code
	MRSigner     [32]byte // hash of the key that signed the enclave
	ConfigID     [64]byte
	ISVProdID    uint16
	ISVSVN       uint16
	ConfigSVN    uint16
	ISVFamilyID  [16]byte
	ReportData   [64]byte // chosen by the enclave
}

// Attributes are an enclave's ATTRIBUTES: flags, and the XFRM mask.
type Attributes struct {
	Flags uint64
	XFRM  uint64
}

// Flags of Attributes.
const (
	FlagInit         uint64 = 1 << 0
	FlagDebug        uint64 = 1 << 1
	FlagMode64       uint64 = 1 << 2
	FlagProvisionKey uint64 = 1 << 4
	FlagKSS          uint64 = 1 << 7
)

// Debug reports that the host can read the enclave's memory.
func (a Attributes) Debug() bool { return a.Flags&FlagDebug != 0 }
