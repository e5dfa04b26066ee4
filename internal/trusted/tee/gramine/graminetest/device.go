// Package graminetest is a fake of Gramine's /dev/attestation in an SGX enclave.
// It has no mercy: state is shared by the whole process and not locked, files
// have the content of the moment they were opened, reads are short, writes count
// when the file is closed, and whoever asks in the wrong order gets an answer to
// an older question.
package graminetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
)

// Step is where an access can be made to fail.
type Step string

// The steps of an access.
const (
	OnOpen  Step = "open"
	OnRead  Step = "read" // after half of the file
	OnWrite Step = "write"
	OnClose Step = "close"
)

// ErrInjected is the failure of Device.Fail.
var ErrInjected = errors.New("injected failure")

// Device is one enclave on one machine. Its fields may be changed between uses.
type Device struct {
	Fuse   byte         // the processor's secret
	Report quote.Report // of the enclave; REPORTDATA is set by what is written
	Type   string       // attestation type: dcap, or else there are no quotes
	Direct bool         // gramine-direct: no SGX files at all

	Fail      map[string]Step   // by name of the file
	Content   map[string][]byte // replaces what a file holds
	Stale     bool              // quotes and reports answer the question before
	ShortOnce bool              // writes take half of the bytes and no error

	// MangleQuote changes a quote before it is encoded.
	MangleQuote func(*quote.Quote)

	// Not locked, like Gramine's: an unlocked user is a data race.
	data, before [64]byte
	target       [512]byte
}

// New is a production enclave of product 1, version 1.
func New() *Device {
	return &Device{
		Fuse: 1, Type: "dcap",
		Report: quote.Report{
			CPUSVN:    [16]byte{1, 2, 3},
			MREnclave: [32]byte{4}, MRSigner: [32]byte{5}, ISVProdID: 1, ISVSVN: 1,
			Attributes: quote.Attributes{Flags: quote.FlagInit | quote.FlagMode64, XFRM: 7},
		},
	}
}

// Open implements gramine.FileSystem.
func (d *Device) Open(name string, write bool) (io.ReadWriteCloser, error) {
	runtime.Gosched() // let others in between two steps
	if d.Fail[name] == OnOpen {
		return nil, &fs.PathError{Op: "open", Path: name, Err: ErrInjected}
	}
	if write {
		if name != "user_report_data" && name != "target_info" || d.Direct {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
		}
		return &handle{device: d, name: name, write: true, fail: d.Fail[name]}, nil
	}
	b, err := d.content(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &handle{device: d, name: name, rest: b, size: len(b), fail: d.Fail[name]}, nil
}

func (d *Device) content(name string) ([]byte, error) {
	if b, ok := d.Content[name]; ok {
		return bytes.Clone(b), nil
	}
	if d.Direct {
		return nil, fs.ErrNotExist
	}
	switch name {
	case "attestation_type":
		return []byte(d.Type), nil
	case "my_target_info":
		return d.ownTarget(), nil
	case "report":
		return d.report(), nil
	case "quote":
		if d.Type == "dcap" {
			return d.quote()
		}
	case "keys/_sgx_mrsigner":
		return d.key(2, d.Report.MRSigner), nil
	case "keys/_sgx_mrenclave":
		return d.key(1, d.Report.MREnclave), nil
	}
	return nil, fs.ErrNotExist
}

func (d *Device) ownTarget() []byte {
	return append(d.Report.MREnclave[:], make([]byte, 512-32)...)
}

// asked is the report data that the next answer is for.
func (d *Device) asked() [64]byte {
	if d.Stale {
		return d.before
	}
	return d.data
}

// report has a MAC that only the target named in target_info would accept; here
// it is a mark of the target.
func (d *Device) report() []byte {
	r := d.Report
	r.ReportData = d.asked()
	return append(append(r.Append(nil), make([]byte, 32)...), d.target[:16]...)
}

func (d *Device) quote() ([]byte, error) {
	q := &quote.Quote{Report: d.Report, AuthData: make([]byte, 32), CertData: []byte("chain")}
	q.Report.ReportData = d.asked()
	if d.MangleQuote != nil {
		d.MangleQuote(q)
	}
	return q.Append(nil)
}

// key is bound to what EGETKEY binds with Gramine's key request.
func (d *Device) key(policy byte, bound [32]byte) []byte {
	r := d.Report
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d %x %d %d %x %t", d.Fuse, policy, bound, r.ISVProdID, r.ISVSVN, r.CPUSVN, r.Attributes.Debug()))
	return sum[:16]
}

func (d *Device) save(name string, b []byte) {
	switch name {
	case "user_report_data":
		d.before, d.data = d.data, [64]byte{}
		copy(d.data[:], b)
	case "target_info":
		d.target = [512]byte{}
		copy(d.target[:], b)
	}
}

// handle is an open file.
type handle struct {
	device  *Device
	name    string
	write   bool
	fail    Step
	rest    []byte
	size    int
	written []byte
}

func (h *handle) Read(p []byte) (int, error) {
	const most = 7 // bytes at a time
	switch {
	case h.write:
		return 0, fs.ErrPermission
	case h.fail == OnRead && len(h.rest) <= h.size/2:
		return 0, ErrInjected
	case len(h.rest) == 0:
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), most)], h.rest)
	h.rest = h.rest[n:]
	return n, nil
}

func (h *handle) Write(p []byte) (int, error) {
	switch {
	case !h.write:
		return 0, fs.ErrPermission
	case h.fail == OnWrite:
		return 0, ErrInjected
	case h.device.ShortOnce:
		p = p[:len(p)/2]
	}
	h.written = append(h.written, p...)
	return len(p), nil
}

func (h *handle) Close() error {
	runtime.Gosched()
	if h.fail == OnClose {
		return ErrInjected
	}
	if h.write {
		h.device.save(h.name, h.written)
	}
	return nil
}
