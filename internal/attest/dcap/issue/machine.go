package issue

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// A Machine is a simulated platform that signs quotes. It is safe for concurrent
// use once it is certified.
type Machine struct {
	PCK   *Authority
	Chain []byte // PEM, leaf first, as it stands in quotes
	QE    QuotingEnclave
}

// A QuotingEnclave holds the attestation key of a machine.
type QuotingEnclave struct {
	Header    quote.Header
	Key       *ecdsa.PrivateKey
	AuthData  []byte       // 32 bytes, as Intel's
	Report    quote.Report // REPORTDATA vouches for Key
	Signature [64]byte     // over Report, by the PCK
}

// The quoting enclave of every fleet.
const (
	QEProduct = 1
	QESVN     = 8
	pceSVN    = 13
)

// QESigner returns the MRSIGNER of the quoting enclave of every fleet.
func QESigner() [32]byte { return sha256.Sum256([]byte("ehsm/simulated-quoting-enclave/v1\x00")) }

// NewPlatform describes a machine with a PPID drawn at random and the TCB that
// collateral asks for by default.
func NewPlatform() verify.Platform {
	p := verify.Platform{
		FMSPC:       [6]byte{0x00, 0x53, 0x49, 0x4d, 0x00, 0x00},
		Components:  [16]uint8{5, 5, 2, 4, 1, 128, 1},
		PCESVN:      pceSVN,
		Type:        1,
		HasInstance: true,
		CachedKeys:  true,
		SMT:         true,
	}
	p.CPUSVN = p.Components
	rand.Read(p.PPID[:]) // never fails
	rand.Read(p.InstanceID[:])
	return p
}

// NewMachine issues a PCK certificate for a platform and certifies a quoting
// enclave on it.
func (f *Fleet) NewMachine(p verify.Platform, now time.Time) (*Machine, error) {
	t, err := PCKTemplate(p, now)
	if err != nil {
		return nil, err
	}
	pck, err := f.PCKCA.Issue(t)
	if err != nil {
		return nil, err
	}
	return NewMachine(pck, quote.EncodeChain(pck.Cert.Raw, f.PCKCA.Cert.Raw, f.Root.Cert.Raw))
}

// NewMachine makes a machine with a fresh attestation key of an issued PCK
// certificate. chain is put into its quotes; it is PEM with the leaf first.
func NewMachine(pck *Authority, chain []byte) (*Machine, error) {
	key, err := newKey()
	if err != nil {
		return nil, fmt.Errorf("make an attestation key: %w", err)
	}
	m := &Machine{PCK: pck, Chain: chain, QE: QuotingEnclave{
		Header:   quote.Header{QESVN: QESVN, PCESVN: pceSVN},
		Key:      key,
		AuthData: make([]byte, 32),
		Report: quote.Report{
			Attributes: quote.Attributes{Flags: quote.FlagInit | quote.FlagMode64 | quote.FlagProvisionKey, XFRM: 0xe7},
			MRSigner:   QESigner(),
			ISVProdID:  QEProduct,
			ISVSVN:     QESVN,
		},
	}}
	for i := range m.QE.AuthData {
		m.QE.AuthData[i] = byte(i)
	}
	sum := sha256.Sum256(append([]byte("ehsm/simulated-quoting-enclave/v1\x00"), pck.Cert.RawSubjectPublicKeyInfo...))
	copy(m.QE.Header.UserData[:16], sum[:])
	return m, m.Certify()
}

// Certify binds the attestation key into the quoting enclave's report and signs
// the report with the PCK. It must follow any change of QE.
func (m *Machine) Certify() (err error) {
	point, err := publicKey(m.QE.Key)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(append(point[:], m.QE.AuthData...))
	m.QE.Report.ReportData = [64]byte{}
	copy(m.QE.Report.ReportData[:], sum[:])
	m.QE.Signature, err = SignRaw(m.PCK.Key, m.QE.Report.Append(nil))
	return err
}

// Quote signs a quote for an enclave's report.
func (m *Machine) Quote(r quote.Report) ([]byte, error) {
	point, err := publicKey(m.QE.Key)
	if err != nil {
		return nil, err
	}
	q := quote.Quote{
		Header: m.QE.Header, Report: r,
		AttestationKey: point,
		QEReport:       m.QE.Report, QESignature: m.QE.Signature,
		AuthData: m.QE.AuthData, CertData: append(bytes.Clone(m.Chain), 0), // a string in C, as Intel's
	}
	if q.Signature, err = SignRaw(m.QE.Key, q.AppendSigned(nil)); err != nil {
		return nil, err
	}
	return q.Append(nil)
}

// publicKey returns a key's point X || Y.
func publicKey(key *ecdsa.PrivateKey) (point [64]byte, err error) {
	b, err := key.PublicKey.Bytes()
	if err != nil || len(b) != 1+len(point) {
		return point, fmt.Errorf("encode attestation key: %w", err)
	}
	return [64]byte(b[1:]), nil
}
