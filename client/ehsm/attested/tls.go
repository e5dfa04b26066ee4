package attested

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/ratls"
	"github.com/ehsm-kms/ehsm/internal/attest"
)

// maxClockLead is how far a statement about a TLS key may be dated ahead.
const maxClockLead = 5 * time.Minute

// VerifyConnection is VerifyTLS for tls.Config and ehsm.Config, where it stands in place of
// chain and host name:
//
//	c, err := ehsm.New(ehsm.Config{URL: url, VerifyConnection: v.VerifyConnection})
//
// Requests then end in the TEE, whole, also those that are not sealed.
func (v *Verifier) VerifyConnection(cs tls.ConnectionState) error {
	_, err := v.VerifyTLS(cs)
	return err
}

// VerifyTLS judges the certificate that a server has shown with the handshake: it has
// evidence that the key of this connection belongs to a whole node in a TEE, which the
// policy and domain accept, made within the last 24 hours. Nobody is asked, so v must have
// Collateral. The report names no HPKE key. Errors: *Error.
func (v *Verifier) VerifyTLS(cs tls.ConnectionState) (*Report, error) {
	if err := v.usable(); err != nil {
		return nil, err
	}
	if cs.Version < tls.VersionTLS13 || len(cs.PeerCertificates) == 0 {
		return nil, &Error{ErrNoEvidence, "tls", fmt.Errorf("%s, want TLS 1.3 and a certificate", tls.VersionName(cs.Version))}
	}
	cert := cs.PeerCertificates[0]
	s, err := ratls.FromCertificate(cert)
	if err != nil {
		return nil, &Error{ErrNoEvidence, "certificate", err}
	}
	c := &claim{domain: s.Domain, instance: formatInstance(s.Instance)}
	if c.evidence, err = attest.DecodeEvidenceOf(s.Evidence, evidenceKinds()...); err != nil {
		return nil, &Error{ErrNoEvidence, "parse", err}
	}
	if err := v.checkDomain(c); err != nil {
		return nil, err
	}
	if err := v.checkDate(s.Date); err != nil {
		return nil, err
	}
	key := ratls.KeyHash(cert)
	c.reportData = attest.ReportData(attest.UseTLS, s.Domain,
		[]byte(api.RoleCore), s.Instance[:], key[:], binary.BigEndian.AppendUint64(nil, uint64(s.Date)))
	r, err := v.judge(context.Background(), nil, c)
	switch {
	case err != nil:
		return nil, err
	case c.evidence.Kind == attest.SGXQuote3 && !r.Simulated:
		return nil, &Error{ErrNotWanted, "whole-node", errors.New("an enclave does not hold the TLS key of its manager")}
	}
	return r, nil
}

// checkDate refuses a statement that is old, or from another time.
func (v *Verifier) checkDate(seconds int64) error {
	if age := v.now().Sub(time.Unix(seconds, 0)); age > ratls.MaxAge || age < -maxClockLead {
		return &Error{ErrStale, "date", fmt.Errorf("the evidence is %v old, want at most %v", age.Round(time.Second), ratls.MaxAge)}
	}
	return nil
}

// formatInstance writes a UUID in lower case.
func formatInstance(b [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
