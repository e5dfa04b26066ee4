package tsm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// vectors returns quotes and a report of real machines.
func vectors(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, name := range []string{
		"../../../attest/dcap/testdata/automata/quotev4.hex", "../../../attest/dcap/testdata/automata/quotev5.dat",
		"../../../attest/dcap/testdata/oasis/quote_v4_tdx_ecdsa_p256.bin",
		"../../../attest/dcap/testdata/phala/tdx_quote", "../../../attest/dcap/testdata/phala/tdx_quote_outdated",
		"testdata/snp_report.bin",
	} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(name) == ".hex" {
			if b, err = hex.DecodeString(string(bytes.TrimSpace(b))); err != nil {
				t.Fatal(err)
			}
		}
		all[filepath.Base(name)] = b
	}
	return all
}

func parser(name string) func([]byte) (claims, error) {
	if name == "snp_report.bin" {
		return parseSNP
	}
	return parseTDX
}

func TestRealEvidence(t *testing.T) {
	for name, b := range vectors(t) {
		want, ok := real[name]
		if !ok {
			t.Errorf("%s is not in the table", name)
			continue
		}
		c, err := parser(name)(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.evidence.Kind != want.kind || len(c.evidence.Quote) != want.size || c.debug != want.debug ||
			hex.EncodeToString(c.reportData[:8]) != want.reportData || hex.EncodeToString(c.measurement[:8]) != want.measurement {
			t.Errorf("%s: got %v of %d bytes, debug %t, REPORTDATA %x, measurement %x", name,
				c.evidence.Kind, len(c.evidence.Quote), c.debug, c.reportData[:8], c.measurement[:8])
		}
	}
}

func TestRefusedTDX(t *testing.T) {
	v4, v5 := vectors(t)["tdx_quote"], vectors(t)["tdx_quote_outdated"]
	set16 := func(b []byte, at int, v uint16) []byte {
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint16(b[at:], v)
		return b
	}
	set32 := func(b []byte, at int, v uint32) []byte {
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	trimmed, err := parseTDX(v4)
	if err != nil {
		t.Fatal(err)
	}
	exact := trimmed.evidence.Quote
	for name, b := range map[string][]byte{
		"empty":                      {},
		"SNP report":                 vectors(t)["snp_report.bin"],
		"SGX quote":                  set32(v4, 4, 0),
		"version 3":                  set16(v4, 0, 3),
		"version 6":                  set16(v4, 0, 6),
		"other key type":             set16(v4, 2, 3),
		"v5: SGX body":               set16(v5, headerSize, 1),
		"v5: unknown body":           set16(v5, headerSize, 4),
		"v5: type of 1.0, size 1.5":  set16(v5, headerSize, body10Type),
		"v5: size of 1.0, type 1.5":  set32(v5, headerSize+2, body10Size),
		"v5: huge body":              set32(v5, headerSize+2, 1<<31),
		"v4: longer signature data":  set32(v4, headerSize+body10Size, uint32(len(v4))),
		"v4: huge signature data":    set32(v4, headerSize+body10Size, 1<<32-1),
		"v4: shorter signature data": set32(exact, headerSize+body10Size, 100),
		"bytes behind":               append(bytes.Clone(exact), 0, 1),
		"too long":                   append(bytes.Clone(exact), make([]byte, attest.MaxQuote)...),
	} {
		if c, err := parseTDX(b); !errors.Is(err, tee.ErrEvidence) || c.evidence.Quote != nil {
			t.Errorf("%s: got %v, want ErrEvidence", name, err)
		}
	}
	for n := range exact {
		if _, err := parseTDX(exact[:n]); !errors.Is(err, tee.ErrEvidence) {
			t.Errorf("cut to %d bytes: got %v, want ErrEvidence", n, err)
		}
	}
	if c, err := parseTDX(append(bytes.Clone(exact), make([]byte, 100)...)); err != nil || !bytes.Equal(c.evidence.Quote, exact) {
		t.Errorf("zeros behind are not cut off: %v", err)
	}
}

func TestRefusedSNP(t *testing.T) {
	good := vectors(t)["snp_report.bin"]
	vmpl := bytes.Clone(good)
	vmpl[vmplOffset] = 1
	production := bytes.Clone(good) // the real one allows debugging
	production[policyOffset+2] &^= 1 << 3
	if c, err := parseSNP(production); err != nil || c.debug {
		t.Errorf("policy without debugging: got debug %t, %v", c.debug, err)
	}
	for name, b := range map[string][]byte{
		"empty": {}, "cut": good[:snpSize-1], "longer": append(bytes.Clone(good), 0), "privilege level 1": vmpl,
		"TDX quote": vectors(t)["tdx_quote"],
	} {
		if c, err := parseSNP(b); !errors.Is(err, tee.ErrEvidence) || c.evidence.Quote != nil {
			t.Errorf("%s: got %v, want ErrEvidence", name, err)
		}
	}
}

// TestMeasurement changes every register: each must show.
func TestMeasurement(t *testing.T) {
	for name, at := range map[string][]int{
		"tdx_quote":          {headerSize + mrtdOffset, headerSize + mrtdOffset + 95, headerSize + rtmrOffset, headerSize + rtmrOffset + 191},
		"tdx_quote_outdated": {54 + mrtdOffset, 54 + mrtdOffset + 95, 54 + rtmrOffset, 54 + rtmrOffset + 191},
		"snp_report.bin":     {measureOffset, measureOffset + 47, measureOffset + 48, measureEnd - 1},
	} {
		b := vectors(t)[name]
		before, err := parser(name)(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range at {
			changed := bytes.Clone(b)
			changed[i] ^= 1
			after, err := parser(name)(changed)
			if err != nil || after.measurement == before.measurement {
				t.Errorf("%s: byte %d does not show in the measurement: %v", name, i, err)
			}
		}
	}
}

func TestCheckKernel(t *testing.T) {
	for _, good := range []string{"6.9.0", "6.18.44-generic\n", "6.10", "7.0.1-rc3", "10.2"} {
		if err := checkKernel(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "6", "6.8.12-generic", "5.19.0", "linux", "6.x", "-6.9", "6.-9"} {
		if err := checkKernel(bad); !errors.Is(err, tee.ErrEntropy) {
			t.Errorf("%q: got %v, want ErrEntropy", bad, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range vectors(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, parse := range []func([]byte) (claims, error){parseTDX, parseSNP} {
			c, err := parse(b)
			switch {
			case err != nil && (!errors.Is(err, tee.ErrEvidence) || c.evidence.Quote != nil):
				t.Errorf("got %v with %d bytes of evidence", err, len(c.evidence.Quote))
			case err == nil && (!bytes.HasPrefix(b, c.evidence.Quote) || !bytes.Contains(c.evidence.Quote, c.reportData[:])):
				t.Error("evidence is not of the bytes that were read")
			}
		}
	})
}

type facts struct {
	kind                    attest.Kind
	size                    int
	debug                   bool
	reportData, measurement string // first 8 bytes
}

// real is what an independent reader, in Python, finds in the vectors.
var real = map[string]facts{
	"quotev4.hex":                 {attest.TDXQuote4, 4935, false, "0000000000000000", "1fcafcd396796cef"},
	"quotev5.dat":                 {attest.TDXQuote5, 5006, false, "83ded8a0ee745596", "33a05922193d3a76"},
	"quote_v4_tdx_ecdsa_p256.bin": {attest.TDXQuote4, 4936, false, "cf83e1357eefb8bd", "bcf141a31a9096af"},
	"tdx_quote":                   {attest.TDXQuote4, 4936, false, "9a9d48e7f6799642", "48889453b4d1eb42"},
	"tdx_quote_outdated":          {attest.TDXQuote5, 5006, false, "d2142b643598eb5f", "edd99441b0bfbc87"},
	"snp_report.bin":              {attest.SNPReport, 1184, true, "0102030405000000", "7467e77ebd71c770"},
}
