package ego

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sgx"
)

const (
	// Open Enclave puts a header before reports: version 4, type 4, size 8.
	headerSize    = 16
	headerVersion = 1
	typeLocal     = 1
	typeRemote    = 2

	reportSize = 432 // bytes of REPORT: its body, KEYID and MAC

	infoV1   = 1
	infoSize = 1 + 16 + 32 // format, CPUSVN, second KEYID

	sealLabel = "ehsm/ego-seal/v1\x00"
)

// calls is what the driver needs of EGo's run-time.
type calls interface {
	// remoteReport returns a quote after Open Enclave's header.
	remoteReport(data [64]byte) ([]byte, error)
	// localReport returns a report after Open Enclave's header, for the program
	// whose report target is; with none, one that only names this program.
	localReport(data [64]byte, target []byte) ([]byte, error)
	// verifyLocal checks the MAC of a report for this program.
	verifyLocal(report []byte) error
	// newKey returns a key of EGETKEY and the KEYREQUEST that gives it again.
	newKey(tee.Policy) (key, request []byte, err error)
	// key returns the key of a KEYREQUEST, or zeros where there is no TEE.
	key(request []byte) ([]byte, error)
}

// Enclave is the enclave that this program runs in.
type Enclave struct {
	calls calls
	id    tee.Identity
}

var (
	_ tee.Platform      = (*Enclave)(nil)
	_ tee.Attester      = (*Enclave)(nil)
	_ tee.KeyMaker      = (*Enclave)(nil)
	_ tee.LocalReporter = (*Enclave)(nil)
)

// detect makes a report for the enclave itself and has the processor verify it,
// which nothing outside an enclave can do. Errors: tee.ErrNoPlatform.
func detect(c calls) (quote.Report, error) {
	const hint = "start with ego run, on a machine with SGX and without OE_SIMULATION"
	refuse := func(err error) (quote.Report, error) {
		return quote.Report{}, fmt.Errorf("%w: %s: %w", tee.ErrNoPlatform, hint, err)
	}
	target, err := c.localReport([64]byte{}, nil)
	if err != nil {
		return refuse(err)
	}
	var data [64]byte
	rand.Read(data[:]) // never fails
	b, err := c.localReport(data, target)
	if err != nil {
		return refuse(err)
	}
	r, err := verifyReport(c, b)
	if err != nil {
		return refuse(err)
	}
	if r.ReportData != data {
		return refuse(fmt.Errorf("%w: REPORTDATA is not what was asked for", tee.ErrEvidence))
	}
	return r, nil
}

func open(c calls, product, svn uint16, checkEntropy func() error) (*Enclave, error) {
	own, err := detect(c)
	if err != nil {
		return nil, err
	}
	if err := checkEntropy(); err != nil {
		return nil, err
	}
	e := &Enclave{calls: c, id: sgx.Identity(own)}
	if err := e.id.Check(product, svn); err != nil {
		return nil, err
	}
	if _, _, err := e.NewSealKey(tee.BindSigner); err != nil {
		return nil, fmt.Errorf("ask EGo for a seal key: %w", err)
	}
	return e, nil
}

// Name implements tee.Platform.
func (e *Enclave) Name() string { return "ego" }

// Simulated implements tee.Platform. EGo's own simulation is never opened.
func (e *Enclave) Simulated() bool { return false }

// Identity implements tee.Platform. It is what the processor reports.
func (e *Enclave) Identity() tee.Identity { return e.id }

// Evidence implements tee.Attester: an SGX quote of version 3, without Open
// Enclave's header. It checks what came back as far as that needs no collateral.
// It does not stop waiting for the quoting enclave when ctx ends.
// Errors: tee.ErrEvidence.
func (e *Enclave) Evidence(ctx context.Context, reportData [64]byte) (attest.Evidence, error) {
	if err := ctx.Err(); err != nil {
		return attest.Evidence{}, err
	}
	b, err := e.calls.remoteReport(reportData)
	if err != nil {
		return attest.Evidence{}, fmt.Errorf("ask the quoting enclave: %w", err)
	}
	if b, err = strip(b, typeRemote); err != nil {
		return attest.Evidence{}, err
	}
	q, err := quote.Parse(b)
	switch {
	case err != nil:
		return attest.Evidence{}, fmt.Errorf("%w: %w", tee.ErrEvidence, err)
	case q.Report.ReportData != reportData:
		return attest.Evidence{}, fmt.Errorf("%w: REPORTDATA is not what was asked for", tee.ErrEvidence)
	case sgx.Identity(q.Report) != e.id:
		return attest.Evidence{}, fmt.Errorf("%w: the quote is of another enclave", tee.ErrEvidence)
	}
	return attest.Evidence{Kind: attest.SGXQuote3, Quote: b}, nil
}

// Target implements tee.LocalReporter.
func (e *Enclave) Target() ([]byte, error) { return e.calls.localReport([64]byte{}, nil) }

// Report implements tee.LocalReporter.
func (e *Enclave) Report(target []byte, reportData [64]byte) ([]byte, error) {
	if _, err := strip(target, typeLocal); err != nil {
		return nil, fmt.Errorf("target: %w", err) // none at all would mean: nobody
	}
	return e.calls.localReport(reportData, target)
}

// VerifyReport implements tee.LocalReporter.
func (e *Enclave) VerifyReport(report []byte) (tee.Identity, [64]byte, error) {
	r, err := verifyReport(e.calls, report)
	return sgx.Identity(r), r.ReportData, err
}

func verifyReport(c calls, b []byte) (quote.Report, error) {
	body, err := strip(b, typeLocal)
	if err != nil {
		return quote.Report{}, err
	}
	if len(body) != reportSize {
		return quote.Report{}, fmt.Errorf("%w: report of %d bytes, want %d", tee.ErrEvidence, len(body), reportSize)
	}
	if err := c.verifyLocal(b); err != nil {
		return quote.Report{}, fmt.Errorf("%w: %w", tee.ErrEvidence, err)
	}
	r, err := quote.ParseReport(body[:quote.ReportSize])
	if err != nil {
		return quote.Report{}, fmt.Errorf("%w: %w", tee.ErrEvidence, err)
	}
	return r, nil
}

// strip checks Open Enclave's header and returns what follows.
func strip(b []byte, kind uint32) ([]byte, error) {
	if len(b) < headerSize {
		return nil, fmt.Errorf("%w: report of %d bytes", tee.ErrEvidence, len(b))
	}
	le := binary.LittleEndian
	version, got, size := le.Uint32(b), le.Uint32(b[4:]), le.Uint64(b[8:])
	if version != headerVersion || got != kind || size != uint64(len(b)-headerSize) {
		return nil, fmt.Errorf("%w: report header of version %d, type %d, size %d; want %d, %d, %d",
			tee.ErrEvidence, version, got, size, headerVersion, kind, len(b)-headerSize)
	}
	return b[headerSize:], nil
}

// NewSealKey implements tee.KeyMaker.
func (e *Enclave) NewSealKey(policy tee.Policy) (tee.KeyRequest, secret.Bytes, error) {
	want, err := sgxPolicy(policy)
	if err != nil {
		return tee.KeyRequest{}, secret.Bytes{}, err
	}
	var requests [2]keyRequest
	for i := range requests {
		key, encoded, err := e.calls.newKey(policy)
		clear(key) // SealKey asks again, by the request: so it is known to work
		if err != nil {
			return tee.KeyRequest{}, secret.Bytes{}, fmt.Errorf("%w: %w", tee.ErrKeyRequest, err)
		}
		if requests[i], err = decodeKeyRequest(encoded); err != nil {
			return tee.KeyRequest{}, secret.Bytes{}, err
		}
	}
	first, second := requests[0], requests[1]
	if first.policy != want || second.policy != want || first.isvSVN != e.id.SVN || second.isvSVN != e.id.SVN ||
		first.cpuSVN != second.cpuSVN || first.keyID == second.keyID {
		return tee.KeyRequest{}, secret.Bytes{}, fmt.Errorf("%w: EGo's key requests are not what was asked for", tee.ErrKeyRequest)
	}
	q := tee.KeyRequest{Policy: policy, SVN: first.isvSVN, KeyID: first.keyID, Info: []byte{infoV1}}
	q.Info = append(append(q.Info, first.cpuSVN[:]...), second.keyID[:]...)
	key, err := e.SealKey(q)
	return q, key, err
}

// SealKey implements tee.Platform. It gives keys of the running versions of
// enclave and processor and of lower ones.
func (e *Enclave) SealKey(q tee.KeyRequest) (secret.Bytes, error) {
	policy, err := sgxPolicy(q.Policy)
	switch {
	case err != nil:
		return secret.Bytes{}, err
	case q.SVN > e.id.SVN:
		return secret.Bytes{}, fmt.Errorf("%w: sealed by version %d, this is %d", tee.ErrKeyRequest, q.SVN, e.id.SVN)
	case len(q.Info) != infoSize || q.Info[0] != infoV1:
		return secret.Bytes{}, fmt.Errorf("%w: key information is not of EGo", tee.ErrKeyRequest)
	}
	var keys [2][]byte
	for i, id := range [...][32]byte{q.KeyID, [32]byte(q.Info[17:])} {
		r := keyRequest{policy: policy, isvSVN: q.SVN, cpuSVN: [16]byte(q.Info[1:]), keyID: id}
		if keys[i], err = e.calls.key(r.encode()); err != nil {
			clear(keys[0])
			return secret.Bytes{}, fmt.Errorf("%w: it may be of a newer processor version: %w", tee.ErrKeyRequest, err)
		}
	}
	return sgx.SealKey(sealLabel, q, e.id.Product, keys[:]...)
}
