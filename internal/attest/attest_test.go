package attest

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

func TestEvidenceEncoding(t *testing.T) {
	e := Evidence{Kind: SGXQuote3, Quote: []byte("quote")}
	b := e.Append(nil)
	if got := hex.EncodeToString(b); got != "0101"+"00000005"+"71756f7465" {
		t.Fatalf("Append: got %s", got)
	}
	got, err := DecodeEvidence(b)
	if err != nil || got.Kind != e.Kind || !bytes.Equal(got.Quote, e.Quote) {
		t.Fatalf("DecodeEvidence: got %v, %v", got, err)
	}
	for name, bad := range map[string][]byte{
		"empty":          {},
		"other format":   append([]byte{2}, b[1:]...),
		"kind zero":      append([]byte{1, 0}, b[2:]...),
		"unknown kind":   append([]byte{1, 9}, b[2:]...),
		"cut":            b[:len(b)-1],
		"trailing bytes": append(bytes.Clone(b), 0),
		"over the limit": Evidence{SGXQuote3, make([]byte, MaxQuote+1)}.Append(nil),
	} {
		if _, err := DecodeEvidence(bad); !errors.Is(err, pack.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
	for _, k := range []Kind{TDXQuote4, TDXQuote5, SNPReport} {
		if _, err := DecodeEvidence(Evidence{Kind: k, Quote: []byte("quote")}.Append(nil)); !errors.Is(err, ErrNoVerifier) {
			t.Errorf("%v: got %v, want ErrNoVerifier", k, err)
		}
	}
}

// A relying party names the kinds that it verifies.
func TestDecodeEvidenceOfOtherKinds(t *testing.T) {
	b := Evidence{Kind: TDXQuote5, Quote: []byte("quote")}.Append(nil)
	if e, err := DecodeEvidenceOf(b, SGXQuote3, TDXQuote5); err != nil || e.Kind != TDXQuote5 {
		t.Errorf("kind is listed: got %v, %v", e, err)
	}
	for name, kinds := range map[string][]Kind{"none": nil, "others": {SGXQuote3, TDXQuote4, SNPReport}} {
		if _, err := DecodeEvidenceOf(b, kinds...); !errors.Is(err, ErrNoVerifier) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestKindOf(t *testing.T) {
	snp := make([]byte, 1184)
	snp[0] = 3
	for name, row := range map[string]struct {
		quote []byte
		want  Kind
	}{
		"SGX":               {[]byte{3, 0, 2, 0, 0, 0, 0, 0, 9}, SGXQuote3},
		"TDX 4":             {[]byte{4, 0, 2, 0, 0x81, 0, 0, 0}, TDXQuote4},
		"TDX 5":             {[]byte{5, 0, 2, 0, 0x81, 0, 0, 0}, TDXQuote5},
		"SEV-SNP":           {snp, SNPReport},
		"SEV-SNP, cut":      {snp[:1183], 0},
		"SGX in version 4":  {[]byte{4, 0, 2, 0, 0, 0, 0, 0}, 0},
		"TDX in version 3":  {[]byte{3, 0, 2, 0, 0x81, 0, 0, 0}, 0},
		"other key type":    {[]byte{3, 0, 3, 0, 0, 0, 0, 0}, 0},
		"version 6":         {[]byte{6, 0, 2, 0, 0x81, 0, 0, 0}, 0},
		"cut in its header": {[]byte{3, 0, 2, 0}, 0},
		"nothing":           {nil, 0},
	} {
		if got := KindOf(row.quote); got != row.want {
			t.Errorf("%s: got %v, want %v", name, got, row.want)
		}
	}
}

// Known answers made with the hash functions of another program.
func TestReportDataKnownAnswers(t *testing.T) {
	domain := [32]byte{1, 2, 3}
	for name, row := range map[string]struct {
		got  [64]byte
		want string
	}{
		"channel": {ReportData(UseChannel, domain, []byte("a"), nil), "20679348ccac823216d00add943833a4035665327c61ff24dee301140d36832c89da7b1a4fcc4e524d3781ed17b6afb6cbcd63516d7f7548ce5d973be59b5909"},
		"native":  {NativeReportData([]byte("challenge"), domain, []byte("key")), "2dd00bd77e0222ced882665481a9c1d9f907309d16e05ed007a1ea63928477a9add2d678cc4c4cf8ff6ef795c0301806d878c57e8784f9c4d10be0584fda0dcb"},
	} {
		if got := hex.EncodeToString(row.got[:]); got != row.want {
			t.Errorf("%s: got %s, want %s", name, got, row.want)
		}
	}
}

func TestReportDataIsBound(t *testing.T) {
	domain := [32]byte{1}
	all := map[string][64]byte{
		"other domain":      ReportData(UseChannel, [32]byte{2}, []byte("ab"), []byte("c")),
		"fields cut apart":  ReportData(UseChannel, domain, []byte("a"), []byte("bc")),
		"fields joined":     ReportData(UseChannel, domain, []byte("abc")),
		"one more, empty":   ReportData(UseChannel, domain, []byte("ab"), []byte("c"), nil),
		"native, same text": NativeReportData([]byte("abc"), domain, nil),
	}
	for _, use := range Uses() {
		all[string(use)] = ReportData(use, domain, []byte("ab"), []byte("c"))
	}
	seen := map[[64]byte]string{}
	for name, d := range all {
		if other, twice := seen[d]; twice {
			t.Errorf("%q and %q have the same REPORTDATA", name, other)
		}
		seen[d] = name
	}
	if len(seen) != len(all) {
		t.Errorf("got %d values, want %d", len(seen), len(all))
	}
}

func FuzzDecodeEvidence(f *testing.F) {
	f.Add(Evidence{SGXQuote3, []byte("quote")}.Append(nil))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEvidence(b)
		if err == nil && !bytes.Equal(e.Append(nil), b) {
			t.Error("evidence does not re-encode to the bytes it came from")
		}
	})
}

// TestMachineSame has what makes two machines one: the serial changes with the TCB.
func TestMachineSame(t *testing.T) {
	m := Machine{PPID: [16]byte{1}, Serial: "0a"}
	chip := Machine{Chip: [64]byte{1}}
	for name, row := range map[string]struct {
		a, b Machine
		want bool
	}{
		"itself":        {m, m, true},
		"other TCB":     {m, Machine{PPID: m.PPID, Serial: "0b"}, true},
		"other machine": {m, Machine{PPID: [16]byte{2}, Serial: "0a"}, false},
		"other maker":   {m, chip, false},
		"the same chip": {chip, chip, true},
		"other chip":    {chip, Machine{Chip: [64]byte{2}}, false},
	} {
		if row.a.Same(row.b) != row.want {
			t.Errorf("%s: got %v", name, !row.want)
		}
	}
}
