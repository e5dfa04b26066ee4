package quote

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
)

// Errors of DecodeChain.
var (
	ErrPEM         = errors.New("certificate chain is not strict PEM")
	ErrChainLength = errors.New("certificate chain has the wrong number of certificates")
	ErrAfterChain  = errors.New("bytes follow the certificate chain")
)

const (
	pemBegin = "-----BEGIN CERTIFICATE-----"
	pemEnd   = "-----END CERTIFICATE-----"
	pemLine  = 64 // characters of base64 in a line, RFC 7468

	// maxChain is the longest chain in bytes; Intel's have less than 4 KiB.
	maxChain = 16 << 10
)

// Certificates decodes the three certificates of the PCK chain, leaf first.
// Errors: those of DecodeChain.
func (q *Quote) Certificates() ([][]byte, error) { return DecodeChain(q.CertData, 3) }

// DecodeChain reads want certificates in PEM and returns them in DER. It reads
// what RFC 7468 calls strict: lines of 64 characters, canonical base64, nothing
// but blank lines between blocks. Lines end in LF or CRLF. After the last block
// it takes one NUL, as Intel's libraries end strings in C, and nothing else.
// Errors: ErrPEM, ErrChainLength, ErrAfterChain.
func DecodeChain(b []byte, want int) ([][]byte, error) {
	if len(b) > maxChain {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrPEM, len(b), maxChain)
	}
	b = bytes.TrimSuffix(b, []byte{0})
	var chain [][]byte
	for b = skipBlank(b); len(b) > 0; b = skipBlank(b) {
		der, rest, err := decodeBlock(b)
		if err != nil && len(chain) == want {
			return nil, fmt.Errorf("%w: %d", ErrAfterChain, len(b))
		}
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(chain), err)
		}
		if len(chain) == want {
			return nil, fmt.Errorf("%w: more than %d", ErrChainLength, want)
		}
		chain, b = append(chain, der), rest
	}
	if len(chain) != want {
		return nil, fmt.Errorf("%w: %d, want %d", ErrChainLength, len(chain), want)
	}
	return chain, nil
}

// EncodeChain writes certificates in DER as the PEM that DecodeChain reads.
func EncodeChain(chain ...[]byte) []byte {
	var out []byte
	for _, der := range chain {
		out = append(out, pemBegin+"\n"...)
		text := base64.StdEncoding.EncodeToString(der)
		for len(text) > 0 {
			n := min(pemLine, len(text))
			out = append(append(out, text[:n]...), '\n')
			text = text[n:]
		}
		out = append(out, pemEnd+"\n"...)
	}
	return out
}

func skipBlank(b []byte) []byte {
	for {
		line, rest, ended := cutLine(b)
		if !ended || len(line) > 0 {
			return b
		}
		b = rest
	}
}

// cutLine returns b up to its first line end, and what follows. ended is false
// where no line end is there.
func cutLine(b []byte) (line, rest []byte, ended bool) {
	line, rest, ended = bytes.Cut(b, []byte{'\n'})
	if ended {
		line = bytes.TrimSuffix(line, []byte{'\r'})
	}
	return line, rest, ended
}

func decodeBlock(b []byte) (der, rest []byte, err error) {
	line, b, _ := cutLine(b)
	if string(line) != pemBegin {
		return nil, nil, fmt.Errorf("%w: it does not start with %q", ErrPEM, pemBegin)
	}
	var text []byte
	last := false // a line shorter than pemLine was read, which only the last may be
	for {
		line, b, _ = cutLine(b)
		switch {
		case string(line) == pemEnd:
			der, err = decodeBase64(text)
			return der, b, err
		case last || len(line) == 0 || len(line) > pemLine:
			return nil, nil, fmt.Errorf("%w: a line has %d characters", ErrPEM, len(line))
		}
		last = len(line) < pemLine
		text = append(text, line...)
	}
}

func decodeBase64(text []byte) ([]byte, error) {
	// The decoder skips CR and LF even in its strict form.
	if len(text) == 0 || bytes.ContainsAny(text, "\r\n") {
		return nil, fmt.Errorf("%w: empty, or a line end within a line", ErrPEM)
	}
	der, err := base64.StdEncoding.Strict().AppendDecode(nil, text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPEM, err)
	}
	return der, nil
}
