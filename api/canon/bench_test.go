package canon

import (
	"strings"
	"testing"
)

// encryptRequest is what a client sends for 16 bytes of plaintext.
const encryptRequest = `{"appid":"86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c","payload":{"keyid":"aac3e45a-d3dc-4791-89b6-4ada0e38e6ef",` +
	`"plaintext":"AAECAwQFBgcICQoLDA0ODw==","aad":"YWFk"},"timestamp":"1700000000000","sign":"NUMQ7Q5tNQXBQYaC0TOp9uLH5+x0J2rjyJx3rAATHc4="}`

func TestAllocations(t *testing.T) {
	body := []byte(encryptRequest)
	v := mustParse(t, encryptRequest)
	buf := make([]byte, 0, 1024)
	match := string(v.AppendCanonical(nil, Skipping))
	tests := []struct {
		name string
		want float64
		run  func()
	}{
		// The text, the stack of the parser and the members of two objects.
		{"Parse and AppendCanonical", 4, func() {
			v, err := Parse(body)
			if err != nil || len(v.AppendCanonical(buf, Skipping)) == 0 {
				t.Fatal("no canonical string")
			}
		}},
		{"Forms", 0, func() {
			for f := range v.Forms() {
				if string(v.AppendCanonical(buf, f)) == match {
					return
				}
			}
			t.Fatal("no form matches")
		}},
		{"Covered", 1, func() { v.Covered(Skipping) }},
	}
	for _, tt := range tests {
		if got := testing.AllocsPerRun(100, tt.run); got > tt.want {
			t.Errorf("%s: got %v allocations, want at most %v", tt.name, got, tt.want)
		}
	}
}

func benchmark(b *testing.B, text string) {
	body := []byte(text)
	buf := make([]byte, 0, 2*len(body))
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		v, err := Parse(body)
		if err != nil || len(v.AppendCanonical(buf, Skipping)) == 0 {
			b.Fatal("no canonical string")
		}
	}
}

func BenchmarkEncryptRequest(b *testing.B) { benchmark(b, encryptRequest) }

func BenchmarkEncryptRequest6144(b *testing.B) {
	benchmark(b, strings.Replace(encryptRequest, "AAECAwQFBgcICQoLDA0ODw==", strings.Repeat("ABCDefgh", 1024), 1))
}

// What 100 kB of hostile text can cost at most.
func BenchmarkHostile(b *testing.B) {
	const size = 100_000
	object := func(member string) string {
		n := min(MaxValues-2, size/(len(member)+1))
		return `{"payload":{` + strings.TrimSuffix(strings.Repeat(member+",", n), ",") + "}}"
	}
	var unsorted strings.Builder
	g := newGenerator()
	for unsorted.Len() < size {
		unsorted.WriteString(`,"` + string([]byte{byte('a' + g.IntN(26)), byte('a' + g.IntN(26)), byte('a' + g.IntN(26))}) + `":1`)
	}
	for _, bb := range []struct{ name, text string }{
		{"array", `{"payload":[1` + strings.Repeat(",1", MaxValues-3) + "]}"},
		{"duplicates", object(`"":1`)},
		{"unsorted", `{"payload":{` + unsorted.String()[1:] + "}}"},
		{"numbers", `{"payload":[` + strings.Repeat("4e-320,", MaxDecimals/6) + strings.Repeat("999999999999999,", 6000) + "1]}"},
		{"escapes", object(`"":"\ud800"`)},
		{"digits", `{"payload":[` + strings.Repeat("4."+strings.Repeat("9", 400)+"e-320,", 2) + "1]}"},
	} {
		b.Run(bb.name, func(b *testing.B) { benchmark(b, bb.text) })
	}
}
