package quote

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestDecodeChain(t *testing.T) {
	a, b := bytes.Repeat([]byte{0x30}, 48), bytes.Repeat([]byte{0x31}, 100) // one full line; a line and a half
	text := string(EncodeChain(a, b))
	if want := pemBegin + "\n" + strings.Repeat("MDAw", 16) + "\n" + pemEnd + "\n"; text[:len(want)] != want {
		t.Fatalf("EncodeChain: got %q", text)
	}
	block := pemBegin + "\n"
	for name, row := range map[string]struct {
		text string
		want error
	}{
		"as written":                {text, nil},
		"one NUL at the end":        {text + "\x00", nil},
		"no line end at the end":    {strings.TrimSuffix(text, "\n"), nil},
		"CRLF":                      {strings.ReplaceAll(text, "\n", "\r\n"), nil},
		"blank line between":        {strings.Replace(text, pemEnd+"\n", pemEnd+"\n\n", 1), nil},
		"two NULs":                  {text + "\x00\x00", ErrAfterChain},
		"letter at the end":         {text + "x", ErrAfterChain},
		"space at the end":          {text + " ", ErrAfterChain},
		"NUL within":                {strings.Replace(text, "\n"+pemBegin, "\n\x00"+pemBegin, 1), ErrPEM},
		"text before":               {"x\n" + text, ErrPEM},
		"space before":              {" " + text, ErrPEM},
		"third certificate":         {text + text[:len(text)/3], ErrAfterChain},
		"third, whole":              {text + string(EncodeChain(a)), ErrChainLength},
		"one certificate":           {string(EncodeChain(a)), ErrChainLength},
		"none":                      {"", ErrChainLength},
		"other type":                {strings.ReplaceAll(text, "CERTIFICATE", "CERTIFICATES"), ErrPEM},
		"begin in lower case":       {strings.ToLower(text), ErrPEM},
		"header":                    {strings.Replace(text, block, block+"Proc-Type: 4\n\n", 1), ErrPEM},
		"blank line within":         {strings.Replace(text, "MDAw\n", "MDAw\n\n", 1), ErrPEM},
		"line of 60":                {strings.Replace(text, "MTEx", "MTEx\n", 1), ErrPEM},
		"line of 68":                {strings.Replace(text, "MDAw\n", "MDAwMDAw\n", 1), ErrPEM},
		"space within":              {strings.Replace(text, "MDAwMDAw", "MDAw DAw", 1), ErrPEM},
		"CR within":                 {strings.Replace(text, "MDAwMDAw", "MDAw\rDAw", 1), ErrPEM},
		"CR after the last":         {strings.Replace(text, "MQ==\n", "MQ==\r\r\n", 1), ErrPEM},
		"bits after the last":       {strings.Replace(text, "MQ==", "MR==", 1), ErrPEM},
		"padding missing":           {strings.Replace(text, "MQ==", "MQ", 1), ErrPEM},
		"empty block":               {block + pemEnd + "\n" + text, ErrPEM},
		"not closed":                {strings.TrimSuffix(text, pemEnd+"\n"), ErrPEM},
		"only begin":                {block, ErrPEM},
		"over the limit":            {text + strings.Repeat("\n", maxChain), ErrPEM},
		"begin without a line feed": {strings.Replace(text, block, pemBegin, 1), ErrPEM},
	} {
		got, err := DecodeChain([]byte(row.text), 2)
		if !errors.Is(err, row.want) || (row.want == nil) != (err == nil) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
		if err == nil && (len(got) != 2 || !bytes.Equal(got[0], a) || !bytes.Equal(got[1], b)) {
			t.Errorf("%s: got %x", name, got)
		}
	}
}

func FuzzDecodeChain(f *testing.F) {
	f.Add(EncodeChain([]byte("a"), bytes.Repeat([]byte("b"), 48)))
	f.Add([]byte(pemBegin + "\n" + pemEnd))
	f.Fuzz(func(t *testing.T, b []byte) {
		chain, err := DecodeChain(b, 2)
		if err != nil {
			return
		}
		// The same but for line ends, blank lines and the NUL.
		squeeze := func(b []byte) []byte {
			b = bytes.ReplaceAll(bytes.TrimSuffix(b, []byte{0}), []byte("\r\n"), []byte("\n"))
			return bytes.ReplaceAll(b, []byte("\n"), nil)
		}
		if !bytes.Equal(squeeze(EncodeChain(chain...)), squeeze(b)) {
			t.Errorf("%q has another form", b)
		}
	})
}
