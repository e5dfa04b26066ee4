package primitive

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"testing"

	"github.com/c2sp/wycheproof"
)

// The vectors of C2SP Wycheproof (Apache License 2.0) come with the module
// github.com/c2sp/wycheproof, pinned in go.mod.

// vectors reads one Wycheproof file whose groups decode into G.
func vectors[G any](t testing.TB, file string) []G {
	t.Helper()
	raw, err := fs.ReadFile(wycheproof.TestVectors, file)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ TestGroups []G }
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return doc.TestGroups
}

// A tally counts rows by their verdict, so that a file which silently runs
// nothing is seen.
type tally map[string]int

func (c tally) check(t *testing.T, file string) {
	t.Helper()
	t.Logf("%s: %v", file, map[string]int(c))
	if c["valid"] == 0 || c["invalid"] == 0 {
		t.Errorf("%s: got %v, want some valid and some invalid rows", file, map[string]int(c))
	}
}

func TestWycheproofAESGCM(t *testing.T) {
	type group struct {
		IVSize, TagSize int
		Tests           []struct {
			TCID                       int
			Key, IV, AAD, Msg, CT, Tag hexBytes
			Result                     string
		}
	}
	const file = "aes_gcm_test.json"
	count := tally{}
	for _, g := range vectors[group](t, file) {
		if g.IVSize != 8*nonceLen || g.TagSize != 8*gcmTagLen {
			count["other nonce length"] += len(g.Tests)
			continue
		}
		for _, v := range g.Tests {
			count[v.Result]++
			body := append(bytes.Clone(v.CT), v.Tag...)
			got, err := openGCM(nil, v.Key, v.IV, body, v.AAD)
			if (err == nil) != (v.Result == "valid") || err == nil && !bytes.Equal(got, v.Msg) {
				t.Errorf("%d: open: got %x, %v, want %s", v.TCID, got, err, v.Result)
			}
			sealed, err := sealGCM(nil, v.Key, v.IV, v.Msg, v.AAD)
			if err != nil || v.Result == "valid" && !bytes.Equal(sealed, body) {
				t.Errorf("%d: seal: got %x, %v, want %x", v.TCID, sealed, err, body)
			}
		}
	}
	count.check(t, file)
}

func TestWycheproofHMAC(t *testing.T) {
	type group struct {
		TagSize int
		Tests   []struct {
			TCID          int
			Key, Msg, Tag hexBytes
			Result        string
		}
	}
	const file = "hmac_sha256_test.json"
	count := tally{}
	for _, g := range vectors[group](t, file) {
		for _, v := range g.Tests {
			count[v.Result]++
			// We never truncate; the vectors with short tags are compared by prefix.
			got := hmacSHA256(v.Key, v.Msg)[:g.TagSize/8]
			if bytes.Equal(got, v.Tag) != (v.Result == "valid") {
				t.Errorf("%d: got %x, want it to be %s against %x", v.TCID, got, v.Result, v.Tag)
			}
		}
	}
	count.check(t, file)
}
