package acceptance

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/acceptance/speed"
)

// hostLabel starts what the nonce of the second run hashes.
const hostLabel = "ehsm/acceptance-host/v1\x00"

// ErrBinding says that the parts of a report do not belong together.
var ErrBinding = errors.New("the parts of the report do not belong together")

// A Device is a file of the host that a platform needs.
type Device struct {
	Path  string `json:"path"`
	State string `json:"state"` // see the constants
}

// States of a device.
const (
	DeviceUsable = "usable"
	DeviceClosed = "there, but this user may not open it"
	DeviceAbsent = "absent"
)

// A Host is what the untrusted program found on the machine. Nothing vouches for
// it but who ran it; the second run's evidence makes sure that it was not changed
// afterwards.
type Host struct {
	Time       time.Time    `json:"time"`
	Version    string       `json:"version"` // of the program
	Command    []string     `json:"command"` // that starts the core
	Domain     string       `json:"domainDirectory"`
	Vendor     string       `json:"processorVendor"`
	Model      string       `json:"processorModel"`
	Microcode  string       `json:"microcode"`
	Flags      []string     `json:"processorFlags"` // those that matter to a TEE
	Processors int          `json:"processors"`
	Kernel     string       `json:"kernel"`
	Product    string       `json:"machine"` // what the firmware calls it
	BIOS       string       `json:"bios"`    // vendor, version, date
	Devices    []Device     `json:"devices"`
	Log        string       `json:"coreLog"` // end of what the first run printed
	Outside    []speed.Rate `json:"throughputOutside"`
	Collateral []byte       `json:"collateral,omitempty"` // docs/formats.md#collateral-v1
}

// Has says whether a device is usable.
func (h *Host) Has(path string) bool {
	for _, d := range h.Devices {
		if d.Path == path {
			return d.State == DeviceUsable
		}
	}
	return false
}

// A Report is what an acceptance leaves behind: two runs of the program in the
// TEE on one machine, and between them what the host saw. The second run's nonce
// is a hash of all that came before, so its evidence covers the whole report.
type Report struct {
	Format string    `json:"format"`
	Nonce  Hex       `json:"nonce"` // NonceSize bytes, of whoever asked for the report
	First  Statement `json:"firstRun"`
	Host   Host      `json:"host"`
	Second Statement `json:"secondRun"`
}

// SecondNonce returns the nonce of the second run.
func (r *Report) SecondNonce() []byte {
	h := sha256.New()
	h.Write([]byte(hostLabel))
	for _, part := range [][]byte{r.Nonce, encode(r.First), encode(r.Host)} {
		var size [4]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(part)))
		h.Write(size[:])
		h.Write(part)
	}
	return h.Sum(nil)
}

// CheckBinding says whether both statements are signed and the report is one
// whole. Without the evidence, which package judge verifies, anybody can make such
// a report. Errors: ErrSignature, ErrBinding.
func (r *Report) CheckBinding() error {
	if err := r.First.CheckSignature(); err != nil {
		return fmt.Errorf("first run: %w", err)
	}
	if err := r.Second.CheckSignature(); err != nil {
		return fmt.Errorf("second run: %w", err)
	}
	if !bytes.Equal(r.First.Result.Nonce, r.Nonce) {
		return fmt.Errorf("%w: the first run answers another nonce", ErrBinding)
	}
	if !bytes.Equal(r.Second.Result.Nonce, r.SecondNonce()) {
		return fmt.Errorf("%w: the second run does not cover the nonce, the first run and what the host saw", ErrBinding)
	}
	return nil
}

// Encode returns the report as indented JSON with a final line feed.
func (r *Report) Encode() []byte {
	var out bytes.Buffer
	if err := json.Indent(&out, encode(r), "", "  "); err != nil { // encode wrote JSON
		panic(fmt.Sprintf("acceptance: indent: %v", err))
	}
	return append(out.Bytes(), '\n')
}

// DecodeReport reads what Encode wrote, with other white space at will. It
// verifies nothing. Errors: ErrMalformed.
func DecodeReport(b []byte) (*Report, error) {
	var r Report
	if err := decode(b, MaxReport, &r); err != nil {
		return nil, err
	}
	if r.Format != ReportFormat {
		return nil, fmt.Errorf("%w: format %q, want %q", ErrMalformed, r.Format, ReportFormat)
	}
	if len(r.Nonce) != NonceSize {
		return nil, fmt.Errorf("%w: nonce of %d bytes, want %d", ErrMalformed, len(r.Nonce), NonceSize)
	}
	if err := r.First.check(); err != nil {
		return nil, err
	}
	return &r, r.Second.check()
}
