package wire

import "encoding/binary"

// What the host reads of sealed records. None of it is authenticated there: the
// core checks it when it opens the record. Layout: docs/formats.md#sealed-record-v1
// and its version 2.
const (
	sealedV1, sealedV2 = 1, 2 // the first byte

	atSealedVersion = 1 + 1 + 32 + 16 + 16 + 4 + 8 // of the DomainKey, 4 bytes
	atSealedTag     = atSealedVersion + 4 + 32     // of the state, 16 bytes; format 2
	atSealedMade    = atSealedTag + 16             // 4 bytes; format 2
	headV1          = atSealedTag
	headV2          = atSealedMade + 4
)

// SealedTag returns the tag of the state that a sealed record has: what format 2
// states, else the last 16 bytes.
func SealedTag(sealed []byte) (t Tag) {
	switch {
	case len(sealed) >= headV2+len(t) && sealed[0] == sealedV2:
		copy(t[:], sealed[atSealedTag:])
	case len(sealed) >= len(t):
		copy(t[:], sealed[len(sealed)-len(t):])
	}
	return t
}

// SealedVersions returns the version of the DomainKey that a sealed record is
// wrapped under, and the one under which this state of it was made, which is the
// first that it was ever wrapped under: keys that were made under a compromised
// version are to be replaced, whatever wraps them since. Both are 0 for what is no
// sealed record.
func SealedVersions(sealed []byte) (wrapped, made uint32) {
	if len(sealed) < headV1 || sealed[0] != sealedV1 && sealed[0] != sealedV2 {
		return 0, 0
	}
	wrapped = binary.BigEndian.Uint32(sealed[atSealedVersion:])
	if sealed[0] == sealedV1 {
		return wrapped, wrapped
	}
	if len(sealed) < headV2 {
		return 0, 0
	}
	return wrapped, binary.BigEndian.Uint32(sealed[atSealedMade:])
}
