package ego

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// runtimeFake is EGo's run-time in an enclave on a fake processor, as strict as
// EGETKEY and EREPORT are. Its fields may be changed between uses.
type runtimeFake struct {
	fuse   byte
	report quote.Report

	outside bool // no enclave: reports fail, keys are zeros without an error

	mangleQuote func(*quote.Quote)
	mangle      func(what string, b []byte) []byte // of any answer
	fail        string                             // what fails
}

var errRuntime = errors.New("OE_FAILURE")

func newFake() *runtimeFake {
	return &runtimeFake{fuse: 1, report: quote.Report{
		CPUSVN: [16]byte{2, 2}, MREnclave: [32]byte{4}, MRSigner: [32]byte{5}, ISVProdID: 1, ISVSVN: 3,
		Attributes: quote.Attributes{Flags: quote.FlagInit | quote.FlagMode64, XFRM: 7},
	}}
}

func (f *runtimeFake) answer(what string, b []byte) ([]byte, error) {
	if f.outside {
		return nil, errors.New("OE_UNSUPPORTED")
	}
	if f.fail == what {
		return nil, errRuntime
	}
	if f.mangle != nil {
		b = f.mangle(what, b)
	}
	return b, nil
}

func withHeader(kind uint32, b []byte) []byte {
	le := binary.LittleEndian
	h := le.AppendUint32(nil, 1)
	h = le.AppendUint32(h, kind)
	return append(le.AppendUint64(h, uint64(len(b))), b...)
}

func (f *runtimeFake) remoteReport(data [64]byte) ([]byte, error) {
	q := &quote.Quote{Report: f.report, AuthData: make([]byte, 32), CertData: []byte("chain")}
	q.Report.ReportData = data
	if f.mangleQuote != nil {
		f.mangleQuote(q)
	}
	b, err := q.Append(nil)
	if err != nil {
		return nil, err
	}
	return f.answer("remote", withHeader(2, b))
}

// mac is what only the enclave of a measurement can compute.
func (f *runtimeFake) mac(target, body []byte) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %x %x", f.fuse, target, body))
	return sum[:16]
}

func (f *runtimeFake) localReport(data [64]byte, target []byte) ([]byte, error) {
	r := f.report
	r.ReportData = data
	body := append(r.Append(nil), make([]byte, 32)...)
	if target == nil {
		return f.answer("target", withHeader(1, append(body, make([]byte, 16)...)))
	}
	return f.answer("local", withHeader(1, append(body, f.mac(target[16+64:16+96], body)...)))
}

func (f *runtimeFake) verifyLocal(report []byte) error {
	body := report[16 : 16+416]
	if f.outside || f.fail == "verify" || !bytes.Equal(report[16+416:], f.mac(f.report.MREnclave[:], body)) {
		return errRuntime
	}
	return nil
}

func (f *runtimeFake) newKey(p tee.Policy) (key, request []byte, err error) {
	r := keyRequest{policy: 2, isvSVN: f.report.ISVSVN, cpuSVN: f.report.CPUSVN}
	if p == tee.BindMeasured {
		r.policy = 1
	}
	rand.Read(r.keyID[:])
	if request, err = f.answer("new key", r.encode()); err != nil {
		return nil, nil, err
	}
	key, err = f.key(r.encode())
	return key, request, err
}

func (f *runtimeFake) key(request []byte) ([]byte, error) {
	if f.outside {
		return make([]byte, 16), nil
	}
	le := binary.LittleEndian
	svn, cpuSVN, policy := le.Uint16(request[4:]), request[8:24], le.Uint16(request[2:])
	if svn > f.report.ISVSVN {
		return nil, errors.New("SGX_ERROR_INVALID_ISVSVN")
	}
	for i, v := range cpuSVN {
		if v > f.report.CPUSVN[i] {
			return nil, errors.New("SGX_ERROR_INVALID_CPUSVN")
		}
	}
	bound := []byte(nil)
	if policy&1 != 0 {
		bound = append(bound, f.report.MREnclave[:]...)
	}
	if policy&2 != 0 {
		bound = append(bound, f.report.MRSigner[:]...)
	}
	flags := f.report.Attributes.Flags & le.Uint64(request[24:])
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %x %d %x %x", f.fuse, bound, f.report.ISVProdID, flags, request))
	return f.answer("key", sum[:16])
}
