package wire

import "testing"

func TestSealedTagAndVersions(t *testing.T) {
	v1 := make([]byte, headV1+4+16)
	v1[0], v1[atSealedVersion+3], v1[len(v1)-1] = 1, 5, 77
	v2 := make([]byte, headV2+4+16)
	v2[0], v2[atSealedVersion+3], v2[atSealedTag+15], v2[atSealedMade+3], v2[len(v2)-1] = 2, 6, 88, 4, 99
	for _, row := range []struct {
		name          string
		sealed        []byte
		tag           byte // the last of it
		wrapped, made uint32
	}{
		{"nothing", nil, 0, 0, 0},
		{"format 1", v1, 77, 5, 5},
		{"format 2", v2, 88, 6, 4},
		{"format 1, cut in the header", v1[:headV1-1], 0, 0, 0},
		{"format 2, cut in the header", v2[:headV2-1], 0, 0, 0},
		{"format 2, cut before the authentication tag", v2[:headV2+15], 0, 6, 4},
		{"another format", append([]byte{3}, v1[1:]...), 77, 0, 0},
	} {
		wrapped, made := SealedVersions(row.sealed)
		if tag := SealedTag(row.sealed); tag[15] != row.tag || wrapped != row.wrapped || made != row.made {
			t.Errorf("%s: got tag %x, versions %d and %d, want %d, %d and %d", row.name, tag, wrapped, made, row.tag, row.wrapped, row.made)
		}
	}
}
