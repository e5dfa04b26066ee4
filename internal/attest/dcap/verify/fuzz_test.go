package verify_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

func FuzzVerify(f *testing.F) {
	g := genuineQuotes(f)[0]
	f.Add(g.quote)
	f.Fuzz(func(t *testing.T, b []byte) {
		// Whoever changes a byte of a genuine quote has none.
		if _, err := verify.Verify(b, g.collateral, intel(g.at)); err == nil && !bytes.Equal(b[:quote.SignedSize], g.quote[:quote.SignedSize]) {
			t.Error("another quote than the genuine one verifies")
		}
	})
}

func FuzzPCKExtension(f *testing.F) {
	p := issue.NewPlatform()
	p.PPID, p.InstanceID = [16]byte{1}, [16]byte{2}
	for range 2 {
		der, err := issue.MarshalExtension(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
		p.HasInstance = false
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := verify.ParsePlatform(b)
		if err != nil {
			return
		}
		again, err := issue.MarshalExtension(p)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := verify.ParsePlatform(again); err != nil || got != p {
			t.Errorf("re-encoded: got %+v, %v, want %+v", got, err, p)
		}
	})
}

func FuzzTCBInfo(f *testing.F) {
	f.Add(phalaCollateral(f).TCBInfo)
	f.Add(automataCollateral(f).TCBInfo)
	f.Add(sampleDocument(f, "intel-sample/tcbInfo.json"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := verify.ParseTCBInfo(b)
		if err == nil && (d == nil || !json.Valid(b)) {
			t.Errorf("got %+v", d)
		}
	})
}

func FuzzQEIdentity(f *testing.F) {
	f.Add(phalaCollateral(f).QEIdentity)
	f.Add(sampleDocument(f, "intel-sample/qeIdentity.json"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := verify.ParseQEIdentity(b)
		if err == nil && (d == nil || !json.Valid(b)) {
			t.Errorf("got %+v", d)
		}
	})
}

func FuzzCRL(f *testing.F) {
	f.Add(read(f, "automata/intel_root_ca_crl.der"))
	f.Add(read(f, "automata/platform_crl.der"))
	f.Add(read(f, "intel-sample/rootCaCrl.der"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := verify.ParseCRL(b); err == nil && !bytes.Equal(l.Raw, b) {
			t.Error("the list is not all of the bytes")
		}
	})
}

func FuzzCollateral(f *testing.F) {
	c := automataCollateral(f)
	f.Add(c.Append(nil))
	f.Add(new(verify.Collateral).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := verify.DecodeCollateral(b)
		if err == nil && !bytes.Equal(c.Append(nil), b) {
			t.Error("the collateral does not re-encode to the bytes it came from")
		}
	})
}

func FuzzCollateralJSON(f *testing.F) {
	f.Add(read(f, "phala/sgx_quote_collateral.json"))
	f.Add([]byte(`{"tcbInfo":{},"signature":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c verify.Collateral
		if _, err := verify.DecodeCollateralJSON(b); err == nil && !json.Valid(b) {
			t.Error("taken, and not JSON")
		}
		if err := c.SetTCBInfo(b); err == nil && !bytes.Contains(b, c.TCBInfo) {
			t.Error("the document is not a part of the body")
		}
	})
}

func sampleDocument(t testing.TB, name string) []byte {
	t.Helper()
	var c verify.Collateral
	if err := c.SetTCBInfo(read(t, name)); err != nil {
		if err := c.SetQEIdentity(read(t, name)); err != nil {
			t.Fatal(err)
		}
		return c.QEIdentity
	}
	return c.TCBInfo
}
