package collateral

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/url"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// maxChainHeader is the longest issuer chain header, in bytes. Intel's have less
// than 4 KiB.
const maxChainHeader = 2 * verify.MaxChain

// decodeChainHeader reads an issuer chain as the services send it, the PEM of
// issuer and root, percent-encoded in the value of one header, and returns it as
// strict PEM.
func decodeChainHeader(values []string) ([]byte, error) {
	switch {
	case len(values) == 0:
		return nil, fmt.Errorf("%w: it has no issuer chain", ErrAnswer)
	case len(values) > 1:
		return nil, fmt.Errorf("%w: it has %d issuer chains", ErrAnswer, len(values))
	case len(values[0]) > maxChainHeader:
		return nil, fmt.Errorf("%w: its issuer chain has %d bytes, limit %d", ErrAnswer, len(values[0]), maxChainHeader)
	}
	// Not QueryUnescape: a plus sign stands for itself in base64.
	text, err := url.PathUnescape(values[0])
	if err != nil {
		return nil, fmt.Errorf("%w: issuer chain: %w", ErrAnswer, err)
	}
	ders, err := quote.DecodeChain([]byte(text), 2)
	if err != nil {
		return nil, fmt.Errorf("%w: issuer chain: %w", ErrAnswer, err)
	}
	return quote.EncodeChain(ders...), nil
}

const crlBlock = "X509 CRL"

// decodeCRL returns the DER of a CRL that was served as DER, as hex in either
// case, or as PEM. The first byte tells: a DER sequence starts with 0x30, its hex
// with '3' (0x33), PEM with '-'. What it holds is read by verify.
func decodeCRL(body []byte) ([]byte, error) {
	text := bytes.TrimSpace(body)
	switch {
	case len(text) == 0:
		return nil, fmt.Errorf("%w: it is empty", ErrAnswer)
	case body[0] == 0x30: // of the body, as DER may end in what looks like a space
		return body, nil
	case text[0] == '-':
		block, rest := pem.Decode(text)
		if block == nil || block.Type != crlBlock || len(bytes.TrimSpace(rest)) > 0 {
			return nil, fmt.Errorf("%w: it is not the PEM of one CRL", ErrAnswer)
		}
		return block.Bytes, nil
	}
	der, err := hex.AppendDecode(nil, text)
	if err != nil {
		return nil, fmt.Errorf("%w: it is not a CRL in DER, hex or PEM", ErrAnswer)
	}
	return der, nil
}
