package verify

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
)

// DecodeCollateralJSON reads collateral in the JSON form that verifiers
// commonly exchange: the members of Intel's sgx_ql_qve_collateral_t, each a
// string, chains in PEM and CRLs in lower-case hex, with tcb_info and
// qe_identity as the signed object and tcb_info_signature and
// qe_identity_signature beside them in lower-case hex. pck_crl_issuer_chain may
// be absent; other members are refused. Errors wrap ErrBundle.
func DecodeCollateralJSON(b []byte) (Collateral, error) {
	_, n, err := strictjson.Parse(b, MaxBundle)
	if err != nil {
		return Collateral{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	n.Only("pck_crl_issuer_chain", "root_ca_crl", "pck_crl", "tcb_info_issuer_chain", "tcb_info", "tcb_info_signature",
		"qe_identity_issuer_chain", "qe_identity", "qe_identity_signature")
	var c Collateral
	if n.Has("pck_crl_issuer_chain") {
		c.PCKCRLIssuerChain = []byte(n.Member("pck_crl_issuer_chain").Text())
	}
	root, pck := n.Member("root_ca_crl").Text(), n.Member("pck_crl").Text()
	c.TCBInfoIssuerChain = []byte(n.Member("tcb_info_issuer_chain").Text())
	c.TCBInfo = []byte(n.Member("tcb_info").Text())
	tcbSignature := n.Member("tcb_info_signature").Text()
	c.QEIdentityIssuerChain = []byte(n.Member("qe_identity_issuer_chain").Text())
	c.QEIdentity = []byte(n.Member("qe_identity").Text())
	qeSignature := n.Member("qe_identity_signature").Text()
	if err := n.Err(); err != nil {
		return Collateral{}, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if c.RootCRL, err = lowerHex(root); err != nil {
		return Collateral{}, fmt.Errorf("root_ca_crl: %w", err)
	}
	if c.PCKCRL, err = lowerHex(pck); err != nil {
		return Collateral{}, fmt.Errorf("pck_crl: %w", err)
	}
	if c.TCBInfoSignature, err = signatureHex(tcbSignature); err != nil {
		return Collateral{}, fmt.Errorf("tcb_info_signature: %w", err)
	}
	if c.QEIdentitySignature, err = signatureHex(qeSignature); err != nil {
		return Collateral{}, fmt.Errorf("qe_identity_signature: %w", err)
	}
	return c, nil
}

// collateralJSON has the members in the order in which verifiers write them.
type collateralJSON struct {
	PCKCRLIssuerChain     string `json:"pck_crl_issuer_chain,omitempty"`
	RootCRL               string `json:"root_ca_crl"`
	PCKCRL                string `json:"pck_crl"`
	TCBInfoIssuerChain    string `json:"tcb_info_issuer_chain"`
	TCBInfo               string `json:"tcb_info"`
	TCBInfoSignature      string `json:"tcb_info_signature"`
	QEIdentityIssuerChain string `json:"qe_identity_issuer_chain"`
	QEIdentity            string `json:"qe_identity"`
	QEIdentitySignature   string `json:"qe_identity_signature"`
}

// EncodeJSON writes c as DecodeCollateralJSON reads it, indented, with a line end.
// Errors wrap ErrBundle: chains and documents that are not UTF-8 have no JSON form.
func (c *Collateral) EncodeJSON() ([]byte, error) {
	for _, text := range [][]byte{c.PCKCRLIssuerChain, c.TCBInfoIssuerChain, c.TCBInfo, c.QEIdentityIssuerChain, c.QEIdentity} {
		if !utf8.Valid(text) {
			return nil, fmt.Errorf("%w: chain or document is not UTF-8", ErrBundle)
		}
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(collateralJSON{
		PCKCRLIssuerChain:     string(c.PCKCRLIssuerChain),
		RootCRL:               hex.EncodeToString(c.RootCRL),
		PCKCRL:                hex.EncodeToString(c.PCKCRL),
		TCBInfoIssuerChain:    string(c.TCBInfoIssuerChain),
		TCBInfo:               string(c.TCBInfo),
		TCBInfoSignature:      hex.EncodeToString(c.TCBInfoSignature[:]),
		QEIdentityIssuerChain: string(c.QEIdentityIssuerChain),
		QEIdentity:            string(c.QEIdentity),
		QEIdentitySignature:   hex.EncodeToString(c.QEIdentitySignature[:]),
	})
	if err != nil {
		return nil, fmt.Errorf("encode collateral: %w", err)
	}
	return out.Bytes(), nil
}

// SetTCBInfo takes TCBInfo and its signature out of the answer of Intel's
// service, an object with the members tcbInfo and signature. The collateral
// shares memory with body. Errors wrap ErrBundle.
func (c *Collateral) SetTCBInfo(body []byte) (err error) {
	c.TCBInfo, c.TCBInfoSignature, err = splitSigned(body, "tcbInfo")
	return err
}

// SetQEIdentity takes QEIdentity and its signature out of the answer of Intel's
// service, an object with the members enclaveIdentity and signature. The
// collateral shares memory with body. Errors wrap ErrBundle.
func (c *Collateral) SetQEIdentity(body []byte) (err error) {
	c.QEIdentity, c.QEIdentitySignature, err = splitSigned(body, "enclaveIdentity")
	return err
}

func splitSigned(body []byte, name string) (raw []byte, signature [64]byte, err error) {
	_, n, err := strictjson.Parse(body, MaxDocument)
	if err != nil {
		return nil, signature, fmt.Errorf("%w: %s: %w", ErrBundle, name, err)
	}
	n.Only(name, "signature")
	raw = n.Member(name).Raw()
	text := n.Member("signature").Text()
	if err := n.Err(); err != nil {
		return nil, signature, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if signature, err = signatureHex(text); err != nil {
		return nil, signature, fmt.Errorf("%s: %w", name, err)
	}
	return raw, signature, nil
}

func signatureHex(s string) (signature [64]byte, err error) {
	b, err := lowerHex(s)
	if err != nil {
		return signature, err
	}
	if len(b) != len(signature) {
		return signature, fmt.Errorf("%w: signature of %d bytes, want %d", ErrBundle, len(b), len(signature))
	}
	return [64]byte(b), nil
}

// lowerHex decodes hex in its one encoding of lower case.
func lowerHex(s string) ([]byte, error) {
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	if hex.EncodeToString(b) != s {
		return nil, fmt.Errorf("%w: hex digits are not in lower case", ErrBundle)
	}
	return b, nil
}
