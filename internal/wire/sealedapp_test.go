package wire

import (
	"bytes"
	"encoding/hex"
	"slices"
	"testing"
)

// sealedApp is an app record with attributes, written out by hand.
func sealedApp(t testing.TB, format byte, attributes string) []byte {
	t.Helper()
	size := headV1
	if format == sealedV2 {
		size = headV2
	}
	b := make([]byte, size)
	b[0], b[1] = format, byte(App)
	a, err := hex.DecodeString(attributes)
	if err != nil {
		t.Fatal(err)
	}
	b = append(append(b, 0, 0, 0, byte(len(a))), a...)
	return append(b, make([]byte, 48)...)
}

const (
	// State, exposed, created, modified, generation, its time, default key.
	appRest   = "00" + "0000000000000007" + "0000000000000009" + "00000001" + "0000000000000003" + "11111111111111111111111111111111"
	layout1   = "01" + "02" + appRest
	oneKey    = "000102030405060708090a0b0c0d0e0f" + "01" + "01" + "00" + "0000000000000021" + "0000000000000063" + "00000000000000000000000000000000" + "0002" + "6869" + "00000000"
	oneSigner = "f00102030405060708090a0b0c0d0e0f" + "02" + "02" + "01" + "0000000000000022" + "0000000000000000" + "00000000000000000000000000000000" + "0000" + "00000003" + "aabbcc"
	layout2   = "02" + "02" + appRest + "0001" + "61" + "00000002" + oneSigner + oneKey
)

func TestSealedAPIKeys(t *testing.T) {
	second := []APIKey{{ID: UUID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, Created: 0x21, Expires: 0x63}}
	other := sealedApp(t, sealedV1, layout1)
	other[1] = byte(Key)
	for _, row := range []struct {
		name   string
		sealed []byte
		want   []APIKey
	}{
		{"layout 1", sealedApp(t, sealedV1, layout1), []APIKey{{Created: 7}}},
		{"layout 1, wrapped anew", sealedApp(t, sealedV2, layout1), []APIKey{{Created: 7}}},
		{"layout 2", sealedApp(t, sealedV1, layout2), second},
		{"layout 2, wrapped anew", sealedApp(t, sealedV2, layout2), second},
		{"an app that is gone", sealedApp(t, sealedV1, "02"+"06"+appRest+"0000"+"00000000"), nil},
		{"nothing", nil, nil},
		{"another record", other, nil},
		{"another format", sealedApp(t, 3, layout1), nil},
		{"another layout", sealedApp(t, sealedV1, "03"+"02"+appRest), nil},
		{"trailing bytes", sealedApp(t, sealedV1, layout1+"00"), nil},
		{"cut short", sealedApp(t, sealedV1, layout2[:len(layout2)-2]), nil},
		{"more than there may be", sealedApp(t, sealedV1, "02"+"02"+appRest+"0000"+"00000011"), nil},
		{"cut in the header", sealedApp(t, sealedV1, layout1)[:100], nil},
	} {
		if got := SealedAPIKeys(row.sealed); !slices.Equal(got, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, got, row.want)
		}
	}
}

func FuzzSealedAPIKeys(f *testing.F) {
	f.Add(sealedApp(f, sealedV1, layout1))
	f.Add(sealedApp(f, sealedV2, layout2))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		if keys := SealedAPIKeys(b); len(keys) > maxAppCredentials || !bytes.Equal(b, before) {
			t.Errorf("got %d keys, want at most %d", len(keys), maxAppCredentials)
		}
	})
}
