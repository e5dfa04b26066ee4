package manifest

import (
	"errors"
	"slices"
	"testing"
)

func TestVersions(t *testing.T) {
	got, err := Versions([]string{"manifest-10.json", "genesis.json", "manifest-2.json", "manifest", "domainkey.sealed"})
	if err != nil || !slices.Equal(got, []uint64{2, 10}) {
		t.Errorf("got %d, %v", got, err)
	}
	many := make([]string, maxFiles+1)
	for i := range many {
		many[i] = FileName(uint64(i))
	}
	for name, list := range map[string][]string{
		"no number": {"manifest-.json"}, "leading zero": {"manifest-02.json"}, "sign": {"manifest-+2.json"}, "other end": {"manifest-2.json.bak"},
		"no end": {"manifest-2"}, "too large": {"manifest-18446744073709551616.json"}, "too many": many,
	} {
		if _, err := Versions(list); !errors.Is(err, ErrFiles) {
			t.Errorf("%s: got %v, want ErrFiles", name, err)
		}
	}
}
