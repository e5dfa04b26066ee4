//go:build !race

package primitive

import "testing"

// The race detector empties pools at random, so allocations are counted without.

// TestAllocations bounds what Encrypt and Decrypt of AES-GCM may allocate: the block, the
// AEAD, the result.
func TestAllocations(t *testing.T) {
	s := newSymmetric(t, AESGCM256)
	c, err := s.Encrypt(nil, make([]byte, 32), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(){
		"Encrypt": func() { s.Encrypt(nil, c[:32], nil) },
		"Decrypt": func() { s.Decrypt(nil, c, nil) },
	} {
		if n := testing.AllocsPerRun(100, f); n > 4 {
			t.Errorf("%s allocates %v times, want at most 4", name, n)
		}
	}
}
