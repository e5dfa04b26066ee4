package snp

import (
	"bytes"
	"testing"
)

// TestCollateralAppend has one encoding for what is written in several ways.
func TestCollateralAppend(t *testing.T) {
	s := newScene(t)
	for name, crl := range map[string][]byte{"without a CRL": nil, "with one": []byte("CRL")} {
		c := s.c
		c.CRL = crl
		b := c.Append([]byte("before"))
		b, ok := bytes.CutPrefix(b, []byte("before"))
		if !ok {
			t.Fatalf("%s: it does not append", name)
		}
		for form, file := range map[string][]byte{"as written": b, "with blank lines": bytes.ReplaceAll(b, []byte("-----\n-----"), []byte("-----\n\n\n-----"))} {
			got, err := DecodeCollateral(file)
			if err != nil || !bytes.Equal(got.Append(nil), b) {
				t.Errorf("%s, %s: %v, %q", name, form, err, got.Append(nil))
			}
		}
	}
}
