package quote

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, ".hex") {
		if b, err = hex.DecodeString(strings.TrimSpace(string(b))); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

var sgxQuotes = []string{"phala/sgx_quote", "automata/quotev3.hex", "automata/quote_sgx.bin", "oasis/quote_v3_ecdsa_p256_pck_chain.bin"}

func TestRealQuotesKeepEveryByte(t *testing.T) {
	for _, name := range sgxQuotes {
		b := read(t, name)
		q, err := Parse(b)
		if err != nil {
			t.Errorf("%s: got %v", name, err)
			continue
		}
		if got, err := q.Append(nil); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s: Append gives other bytes, %v", name, err)
		}
		if chain, err := q.Certificates(); err != nil || !bytes.Equal(append(EncodeChain(chain...), 0), q.CertData) {
			t.Errorf("%s: EncodeChain gives other bytes, %v", name, err)
		}
	}
}

// Values read off the file with a hex dump.
func TestFieldsOfARealQuote(t *testing.T) {
	q, err := Parse(read(t, "phala/sgx_quote"))
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		got  []byte
		want string
	}{
		"user data":   {q.Header.UserData[:], "3987622ee6968a54977c8626ef47123500000000"},
		"CPUSVN":      {q.Report.CPUSVN[:], "0b0b1a18ffff04000000000000000000"},
		"MRENCLAVE":   {q.Report.MREnclave[:], "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb"},
		"MRSIGNER":    {q.Report.MRSigner[:], "815f42f11cf64430c30bab7816ba596a1da0130c3b028b673133a66cf9a3e0e6"},
		"REPORTDATA":  {q.Report.ReportData[:14], hex.EncodeToString([]byte("Hello, world!\x00"))},
		"QE MRSIGNER": {q.QEReport.MRSigner[:], "8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff"},
		"QE data":     {q.QEReport.ReportData[:], "c261bb882e542aa8d7f9e99a00efcb11cf2ee66fa9c6861f9230d3f803a275fd" + strings.Repeat("00", 32)},
		"auth data":   {q.AuthData, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"},
	} {
		if got := hex.EncodeToString(row.got); got != row.want {
			t.Errorf("%s: got %s, want %s", name, got, row.want)
		}
	}
	if q.Header.QESVN != 10 || q.Header.PCESVN != 15 || q.QEReport.ISVProdID != 1 || q.QEReport.ISVSVN != 10 {
		t.Errorf("got header %+v, QE product %d and SVN %d", q.Header, q.QEReport.ISVProdID, q.QEReport.ISVSVN)
	}
	if a := q.QEReport.Attributes; a.Flags != FlagInit|FlagMode64|FlagProvisionKey || a.XFRM != 0xe7 || a.Debug() {
		t.Errorf("QE attributes: got %+v", a)
	}
	debug, err := Parse(read(t, "automata/quote_sgx.bin"))
	if err != nil || !debug.Report.Attributes.Debug() {
		t.Errorf("a debug enclave's quote: got %v", err)
	}
}

// edit returns a real quote after a change.
func edit(t testing.TB, change func(b []byte) []byte) []byte {
	return change(read(t, "phala/sgx_quote"))
}

func put16(at int, v uint16) func([]byte) []byte {
	return func(b []byte) []byte { binary.LittleEndian.PutUint16(b[at:], v); return b }
}

func put32(at int, v uint32) func([]byte) []byte {
	return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], v); return b }
}

const (
	authAt = fixedSize + fixedSigSize
	certAt = authAt + 2 + 32
)

func TestParseRefuses(t *testing.T) {
	size := uint32(len(read(t, "phala/sgx_quote")) - fixedSize)
	for name, row := range map[string]struct {
		quote []byte
		want  error
	}{
		"empty":                       {nil, ErrTruncated},
		"header cut":                  {edit(t, func(b []byte) []byte { return b[:HeaderSize-1] }), ErrTruncated},
		"only a header":               {edit(t, func(b []byte) []byte { return b[:HeaderSize] }), ErrTruncated},
		"no length of signature data": {edit(t, func(b []byte) []byte { return b[:fixedSize-1] }), ErrTruncated},
		"last byte missing":           {edit(t, func(b []byte) []byte { return b[:len(b)-1] }), ErrTruncated},
		"one byte more":               {edit(t, func(b []byte) []byte { return append(b, 0) }), ErrTrailing},
		"too long":                    {edit(t, func(b []byte) []byte { return append(b, make([]byte, MaxSize)...) }), ErrTooLong},
		"version 2":                   {edit(t, put16(0, 2)), ErrVersion},
		"version 4 for SGX":           {edit(t, put16(0, 4)), ErrVersion},
		"ECDSA-P384":                  {edit(t, put16(2, 3)), ErrKeyType},
		"EPID":                        {edit(t, put16(2, 0)), ErrKeyType},
		"TEE type in version 3":       {edit(t, put32(4, teeTypeTDX)), ErrTEEType},
		"other vendor":                {edit(t, put16(12, 0)), ErrVendor},
		"signature data of nothing":   {edit(t, put32(lengthOffset, 0)), ErrSignatureLength},
		"signature data too short":    {edit(t, func(b []byte) []byte { return put32(lengthOffset, minSigSize-1)(b[:fixedSize+minSigSize-1]) }), ErrSignatureLength},
		"length one less":             {edit(t, put32(lengthOffset, size-1)), ErrTrailing},
		"length one more":             {edit(t, put32(lengthOffset, size+1)), ErrTruncated},
		"length of 4 GiB":             {edit(t, put32(lengthOffset, 1<<32-1)), ErrTruncated},
		"auth data over the end":      {edit(t, put16(authAt, 0xffff)), ErrAuthLength},
		"auth data to the end":        {edit(t, put16(authAt, uint16(size-fixedSigSize-2))), ErrAuthLength},
		"no certification data type":  {edit(t, put16(certAt, 0)), ErrCertType},
		"PPID in clear":               {edit(t, put16(certAt, 1)), ErrCertType},
		"PCK leaf only":               {edit(t, put16(certAt, 4)), ErrCertType},
		"cert length one less":        {edit(t, put32(certAt+2, 3547)), ErrCertLength},
		"cert length one more":        {edit(t, put32(certAt+2, 3549)), ErrCertLength},
		"cert length of 4 GiB":        {edit(t, put32(certAt+2, 1<<32-1)), ErrCertLength},
		"reserved byte":               {edit(t, put16(HeaderSize+20, 1)), ErrReserved},
		"last reserved byte":          {edit(t, put16(HeaderSize+302, 0x100)), ErrReserved},
		"reserved byte of the QE":     {edit(t, put16(fixedSize+128+96, 1)), ErrReserved},
		"encrypted PPID":              {read(t, "oasis/quote_v3_ecdsa_p256_eppid.bin"), ErrCertType},
		"Intel's sample":              {read(t, "intel-sample/quote.dat"), ErrCertType},
		"TDX v4, phala":               {read(t, "phala/tdx_quote"), ErrTDX},
		"TDX v5, phala":               {read(t, "phala/tdx_quote_outdated"), ErrTDX},
		"TDX v4, automata":            {read(t, "automata/quotev4.hex"), ErrTDX},
		"TDX v5, automata":            {read(t, "automata/quotev5.dat"), ErrTDX},
		"TDX v4, oasis":               {read(t, "oasis/quote_v4_tdx_ecdsa_p256.bin"), ErrTDX},
	} {
		if q, err := Parse(row.quote); !errors.Is(err, row.want) || q != nil {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
}

func TestEveryTruncationIsRefused(t *testing.T) {
	b := read(t, "automata/quotev3.hex")
	for n := range b {
		if _, err := Parse(b[:n]); err == nil {
			t.Errorf("the first %d bytes of %d parse", n, len(b))
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		q    Quote
		want error
	}{
		"long auth data":  {Quote{AuthData: make([]byte, 1<<16)}, ErrAuthLength},
		"long cert data":  {Quote{CertData: make([]byte, MaxSize)}, ErrTooLong},
		"together":        {Quote{AuthData: make([]byte, MaxSize/2), CertData: make([]byte, MaxSize/2)}, ErrTooLong},
		"one byte beyond": {Quote{CertData: make([]byte, MaxSize-fixedSize-minSigSize+1)}, ErrTooLong},
	} {
		if _, err := row.q.Append(nil); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
	longest := Quote{CertData: make([]byte, MaxSize-fixedSize-minSigSize)}
	b, err := longest.Append(nil)
	if err != nil || len(b) != MaxSize {
		t.Fatalf("longest quote: got %d bytes, %v", len(b), err)
	}
	if _, err := Parse(b); err != nil {
		t.Errorf("longest quote: got %v", err)
	}
}

func TestReportSize(t *testing.T) {
	b := new(Report).Append(nil)
	if len(b) != ReportSize {
		t.Fatalf("Append: got %d bytes, want %d", len(b), ReportSize)
	}
	for name, row := range map[string]struct {
		b    []byte
		want error
	}{
		"short": {b[:ReportSize-1], ErrTruncated},
		"long":  {append(bytes.Clone(b), 0), ErrTrailing},
	} {
		if _, err := ParseReport(row.b); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range append(sgxQuotes, "phala/tdx_quote", "intel-sample/quote.dat") {
		f.Add(read(f, name))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := Parse(b)
		if err != nil {
			return
		}
		if got, err := q.Append(nil); err != nil || !bytes.Equal(got, b) {
			t.Errorf("the quote does not re-encode to the bytes it came from: %v", err)
		}
	})
}
