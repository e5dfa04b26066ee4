package record

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const digestLabel = "ehsm/key-version-digest/v1\x00"

// VersionDigest commits to the material of a key version without revealing it:
// HMAC-SHA-256 keyed with the material over the version's name. A key record
// holds it, so that the host cannot pair a key with other material, whatever
// DomainKey version wraps it. HMAC pads its key with zeros, so materials of one
// spec must not differ by zeros at the end alone: raw ones have one length, the
// others are DER.
func VersionDigest(id wire.RecordID, v KeyVersion, material secret.Bytes) (d [32]byte) {
	m := hmac.New(sha256.New, material.Expose())
	m.Write([]byte(digestLabel))
	m.Write(id.Tenant[:])
	m.Write(id.ID[:])
	m.Write(binary.BigEndian.AppendUint32(nil, id.Version))
	m.Write([]byte{byte(v.Spec), byte(v.Usage), byte(v.Origin)})
	m.Sum(d[:0])
	return d
}
