package manifest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// sealedOnlyHash is that of testdata/sealedonly.json, for good.
const sealedOnlyHash = "475160be3a30757872525446aa030fa4d34d400172210b1c31332211395bb168"

// TestSealedOnly has the genesis of a domain that demands sealed requests.
func TestSealedOnly(t *testing.T) {
	d := draft()
	d.Settings.SealedOnly = true
	want := signed(t, d.Complete(first().Statement.DomainKey, recovery(), made), 1, 2)
	b, err := os.ReadFile(filepath.Join("testdata", "sealedonly.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want) {
		t.Errorf("the code writes something else: %s", want)
	}
	s, err := Open(b)
	if err != nil {
		t.Fatal(err)
	}
	if s.Hash.String() != sealedOnlyHash || !s.Settings.SealedOnly {
		t.Errorf("got hash %s, sealedOnly %v, want %s, true", s.Hash, s.Settings.SealedOnly, sealedOnlyHash)
	}
}
