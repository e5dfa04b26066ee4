// Package gramine is the platform of SGX enclaves that run under Gramine. It is
// pure Go over the files below /dev/attestation.
//
// It trusts Gramine, which is in the enclave and measured, and the processor. It
// hides the processor's keys from all but the seal keys it derives. That the
// files are Gramine's and not the host's cannot be seen from within: a program
// outside an enclave may be shown anything. Verifiers of evidence see it.
//
// # Seal keys
//
// Gramine gives keys for the *running* security version of the processor
// (CPUSVN) and of the enclave (ISVSVN) only. After an update of microcode or of
// the version, what was sealed before does not open any more, and this package
// says so: provision the DomainKey again. It stores CPUSVN in the request to
// tell that case from damage. One key of 128 bits is what the file holds.
//
// # Local reports
//
// Gramine makes local reports but gives no key to verify them, so a Device is no
// tee.LocalReporter.
package gramine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sgx"
)

const (
	targetInfoSize = 512 // bytes of TARGETINFO
	reportSize     = 432 // bytes of REPORT: its body, KEYID and MAC

	infoV1   = 1
	infoSize = 1 + 16 // format, CPUSVN

	sealLabel = "ehsm/gramine-seal/v1\x00"
)

// Device is Gramine's device in a running enclave.
type Device struct {
	fsys   FileSystem
	id     tee.Identity
	cpuSVN [16]byte // constant while the enclave lives

	// mu spans every write and the read that it is for: user_report_data and
	// target_info are variables of the whole process, and nothing locks them.
	mu sync.Mutex
}

var (
	_ tee.Platform = (*Device)(nil)
	_ tee.Attester = (*Device)(nil)
	_ tee.KeyMaker = (*Device)(nil)
)

// Detect refuses everything but an enclave under Gramine with DCAP attestation.
// Errors: tee.ErrNoPlatform, with what to do.
func Detect(fsys FileSystem) error {
	kind, err := read(fsys, typeFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: Gramine shows no SGX device; start with gramine-sgx, not gramine-direct: %w", tee.ErrNoPlatform, err)
	case err != nil:
		return fmt.Errorf("%w: %w", tee.ErrNoPlatform, err)
	case string(kind) != "dcap":
		return fmt.Errorf(`%w: Gramine's attestation type is %q; set sgx.remote_attestation = "dcap" in the manifest`, tee.ErrNoPlatform, kind)
	}
	return nil
}

// Open opens the device for the program of a product and version, which the
// enclave must be signed as. It tests report, keys and randomness once.
// Errors: tee.ErrNoPlatform, tee.ErrIdentity, tee.ErrEvidence,
// tee.ErrKeyRequest, tee.ErrEntropy.
func Open(fsys FileSystem, product, svn uint16) (*Device, error) {
	return open(fsys, product, svn, tee.CheckEntropy)
}

func open(fsys FileSystem, product, svn uint16, checkEntropy func() error) (*Device, error) {
	if err := Detect(fsys); err != nil {
		return nil, err
	}
	if err := checkEntropy(); err != nil {
		return nil, err
	}
	d := &Device{fsys: fsys}
	own, err := d.ownReport()
	if err != nil {
		return nil, fmt.Errorf("ask Gramine for the enclave's own report: %w", err)
	}
	d.id, d.cpuSVN = sgx.Identity(own), own.CPUSVN
	if err := d.id.Check(product, svn); err != nil {
		return nil, err
	}
	if _, _, err := d.NewSealKey(tee.BindSigner); err != nil {
		return nil, fmt.Errorf("ask Gramine for a seal key: %w", err)
	}
	return d, nil
}

// Name implements tee.Platform.
func (d *Device) Name() string { return "gramine" }

// Simulated implements tee.Platform.
func (d *Device) Simulated() bool { return false }

// Identity implements tee.Platform. It is what the processor reports.
func (d *Device) Identity() tee.Identity { return d.id }

// ownReport returns the report that the enclave makes for itself.
func (d *Device) ownReport() (quote.Report, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	target, err := read(d.fsys, myTargetInfoFile)
	if err != nil {
		return quote.Report{}, err
	}
	if len(target) != targetInfoSize {
		return quote.Report{}, fmt.Errorf("%w: %s has %d bytes, want %d", tee.ErrEvidence, myTargetInfoFile, len(target), targetInfoSize)
	}
	if err := write(d.fsys, targetInfoFile, target); err != nil {
		return quote.Report{}, err
	}
	var data [64]byte
	rand.Read(data[:]) // never fails; an old report shows by it
	if err := write(d.fsys, reportDataFile, data[:]); err != nil {
		return quote.Report{}, err
	}
	b, err := read(d.fsys, reportFile)
	if err != nil {
		return quote.Report{}, err
	}
	if len(b) != reportSize {
		return quote.Report{}, fmt.Errorf("%w: %s has %d bytes, want %d", tee.ErrEvidence, reportFile, len(b), reportSize)
	}
	r, err := quote.ParseReport(b[:quote.ReportSize])
	if err != nil {
		return quote.Report{}, fmt.Errorf("%w: %w", tee.ErrEvidence, err)
	}
	return r, checkData(r, data)
}

// Evidence implements tee.Attester: an SGX quote of version 3. It checks what
// came back as far as that needs no collateral. It does not stop waiting for the
// quoting enclave when ctx ends. Errors: tee.ErrEvidence.
func (d *Device) Evidence(ctx context.Context, reportData [64]byte) (attest.Evidence, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil { // after the wait for others
		return attest.Evidence{}, err
	}
	if err := write(d.fsys, reportDataFile, reportData[:]); err != nil {
		return attest.Evidence{}, err
	}
	b, err := read(d.fsys, quoteFile)
	if err != nil {
		return attest.Evidence{}, fmt.Errorf("ask the quoting enclave (does the AESM service run?): %w", err)
	}
	q, err := quote.Parse(b)
	if err != nil {
		return attest.Evidence{}, fmt.Errorf("%w: %w", tee.ErrEvidence, err)
	}
	if err := checkData(q.Report, reportData); err != nil {
		return attest.Evidence{}, err
	}
	if sgx.Identity(q.Report) != d.id {
		return attest.Evidence{}, fmt.Errorf("%w: the quote is of another enclave", tee.ErrEvidence)
	}
	return attest.Evidence{Kind: attest.SGXQuote3, Quote: b}, nil
}

func checkData(r quote.Report, want [64]byte) error {
	if r.ReportData != want {
		return fmt.Errorf("%w: REPORTDATA is not what was written", tee.ErrEvidence)
	}
	return nil
}

// NewSealKey implements tee.KeyMaker.
func (d *Device) NewSealKey(policy tee.Policy) (tee.KeyRequest, secret.Bytes, error) {
	q := tee.KeyRequest{Policy: policy, SVN: d.id.SVN, Info: append([]byte{infoV1}, d.cpuSVN[:]...)}
	rand.Read(q.KeyID[:]) // never fails
	key, err := d.SealKey(q)
	return q, key, err
}

// SealKey implements tee.Platform. It gives keys only for the running versions
// of enclave and processor; see the package comment.
func (d *Device) SealKey(q tee.KeyRequest) (secret.Bytes, error) {
	const again = "Gramine gives only the key of the running versions: provision the DomainKey again"
	switch {
	case q.SVN > d.id.SVN:
		return secret.Bytes{}, fmt.Errorf("%w: sealed by version %d, this is %d", tee.ErrKeyRequest, q.SVN, d.id.SVN)
	case len(q.Info) != infoSize || q.Info[0] != infoV1:
		return secret.Bytes{}, fmt.Errorf("%w: key information is not of Gramine", tee.ErrKeyRequest)
	case q.SVN != d.id.SVN:
		return secret.Bytes{}, fmt.Errorf("%w: sealed by version %d, this is %d; %s", tee.ErrKeyRequest, q.SVN, d.id.SVN, again)
	case [16]byte(q.Info[1:]) != d.cpuSVN:
		return secret.Bytes{}, fmt.Errorf("%w: sealed under processor version %x, this is %x; %s", tee.ErrKeyRequest, q.Info[1:], d.cpuSVN, again)
	}
	var name string
	switch q.Policy {
	case tee.BindSigner:
		name = signerKeyFile
	case tee.BindMeasured:
		name = measuredKeyFile
	default:
		return secret.Bytes{}, fmt.Errorf("%w: policy %d is unknown", tee.ErrKeyRequest, q.Policy)
	}
	raw, err := read(d.fsys, name)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: %w", tee.ErrKeyRequest, err)
	}
	return sgx.SealKey(sealLabel, q, d.id.Product, raw)
}
