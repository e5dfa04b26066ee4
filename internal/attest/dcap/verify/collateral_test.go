package verify_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// The layout of the bundle, written by hand.
func TestBundleKnownAnswer(t *testing.T) {
	c := verify.Collateral{
		PCKCRLIssuerChain: []byte("a"), RootCRL: []byte("bb"), PCKCRL: []byte("c"), TCBInfoIssuerChain: []byte("d"), TCBInfo: []byte("e"),
		TCBInfoSignature: [64]byte{1}, QEIdentityIssuerChain: []byte("f"), QEIdentity: []byte("g"), QEIdentitySignature: [64]byte{2},
	}
	want := "01" + "0000000161" + "000000026262" + "0000000163" + "0000000164" + "0000000165" + "01" + strings.Repeat("00", 63) +
		"0000000166" + "0000000167" + "02" + strings.Repeat("00", 63)
	b := c.Append(nil)
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("Append: got %s, want %s", got, want)
	}
	if got, err := verify.DecodeCollateral(b); err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("DecodeCollateral: got %+v, %v", got, err)
	}
}

func TestBundleRefused(t *testing.T) {
	c := phalaCollateral(t)
	b := c.Append(nil)
	for name, bad := range map[string][]byte{
		"empty":          {},
		"other format":   append([]byte{2}, b[1:]...),
		"cut":            b[:len(b)-1],
		"trailing bytes": append(bytes.Clone(b), 0),
		"length 4 GiB":   append([]byte{1, 0xff, 0xff, 0xff, 0xff}, b[5:]...),
		"long CRL":       (&verify.Collateral{RootCRL: make([]byte, verify.MaxCRL+1)}).Append(nil),
		"long document":  (&verify.Collateral{TCBInfo: make([]byte, verify.MaxDocument+1)}).Append(nil),
		"long chain":     (&verify.Collateral{QEIdentityIssuerChain: make([]byte, verify.MaxChain+1)}).Append(nil),
	} {
		if _, err := verify.DecodeCollateral(bad); !errors.Is(err, verify.ErrBundle) {
			t.Errorf("%s: got %v, want ErrBundle", name, err)
		}
	}
}

func TestJSONRefused(t *testing.T) {
	text := string(read(t, "phala/sgx_quote_collateral.json"))
	for name, row := range map[string]struct{ old, new string }{
		"not JSON":             {`{`, ``},
		"unknown member":       {`{`, `{"x":1,`},
		"member twice":         {`{`, `{"pck_crl":"00",`},
		"other case":           {`"pck_crl":`, `"PCK_CRL":`},
		"no root CRL":          {`"root_ca_crl":`, `"x":`},
		"number":               {`"pck_crl": "`, `"pck_crl": 1, "y": "`},
		"CRL in upper case":    {`"root_ca_crl": "3082`, `"root_ca_crl": "3082A`},
		"odd number of digits": {`"pck_crl": "3`, `"pck_crl": "`},
		"not hex":              {`"pck_crl": "3`, `"pck_crl": "x`},
		"short signature":      {`"tcb_info_signature": "9a`, `"tcb_info_signature": "`},
		"upper-case signature": {`"qe_identity_signature": "f1`, `"qe_identity_signature": "F1`},
	} {
		bad := strings.Replace(text, row.old, row.new, 1)
		if bad == text {
			t.Fatalf("%s: %q is not in the file", name, row.old)
		}
		if _, err := verify.DecodeCollateralJSON([]byte(bad)); !errors.Is(err, verify.ErrBundle) {
			t.Errorf("%s: got %v, want ErrBundle", name, err)
		}
	}
	for name, body := range map[string]string{
		"empty":           ``,
		"no signature":    `{"tcbInfo":{}}`,
		"no document":     `{"signature":""}`,
		"text":            `{"tcbInfo":"{}","signature":"` + strings.Repeat("00", 64) + `"}`,
		"one more member": `{"tcbInfo":{},"x":1,"signature":"` + strings.Repeat("00", 64) + `"}`,
		"document twice":  `{"tcbInfo":{},"tcbInfo":{},"signature":"` + strings.Repeat("00", 64) + `"}`,
		"short signature": `{"tcbInfo":{},"signature":"` + strings.Repeat("00", 63) + `"}`,
	} {
		var c verify.Collateral
		if err := c.SetTCBInfo([]byte(body)); !errors.Is(err, verify.ErrBundle) {
			t.Errorf("%s: got %v, want ErrBundle", name, err)
		}
	}
}
