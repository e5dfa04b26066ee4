package manifest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// guestsHash is that of testdata/guests.json, for good.
const guestsHash = "14e6a232be116d941073b6eae46276b7de53e5acd688c1b802b96560f4e4e70e"

// guests is the genesis of a domain with guests of both kinds, of which one is in
// two roles.
func guests() *Manifest {
	d := draft()
	s := &d.Settings
	tdx := TDXGuest{MRTD: Register{1}, RTMR0: Register{2}, RTMR1: Register{3}, RTMR2: Register{4}, MRConfigID: Register{47: 5}}
	s.TrustRoots = append(s.TrustRoots, AMDSNP)
	s.Code = append(s.Code,
		Code{Role: RoleCore, TDX: tdx}, Code{Role: RoleDKeyCache, TDX: tdx},
		Code{Role: RoleDKeyServer, SNP: SNPGuest{Measurement: Register{6}, HostData: Hash{7}}})
	s.Platforms = append(s.Platforms, Platform{Name: "node 3", Chip: ChipID{8, 63: 9}})
	s.SNPMinTCB = SNPTCB{Bootloader: 3, SNP: 8, Microcode: 115}
	return d.Complete(first().Statement.DomainKey, recovery(), made)
}

func TestGuests(t *testing.T) {
	want := signed(t, guests(), 1, 2)
	b, err := os.ReadFile(filepath.Join("testdata", "guests.json"))
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
	if s.Hash.String() != guestsHash {
		t.Errorf("got hash %s, want %s", s.Hash, guestsHash)
	}
}
