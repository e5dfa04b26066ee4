package trail

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Every hash and every signature of the trail begins with its own label, so
// that none can stand for another. All that follows a label has a fixed length,
// save the entry at the end of a chain input.
const (
	firstLabel       = "ehsm/audit-first/v1\x00"
	chainLabel       = "ehsm/audit-chain/v1\x00"
	checkpointLabel  = "ehsm/audit-checkpoint/v1\x00"
	endorsementLabel = "ehsm/audit-endorsement/v1\x00"
)

// First returns the chain value before entry 1 of an instance. It ties the
// trail to its domain and instance from the first entry on.
func First(domain [32]byte, instance wire.UUID) [32]byte {
	b := make([]byte, 0, len(firstLabel)+len(domain)+len(instance))
	b = append(b, firstLabel...)
	b = append(b, domain[:]...)
	return sha256.Sum256(append(b, instance[:]...))
}

// Chain returns the chain value of an encoded entry that follows the entry with
// chain value prev. It does not allocate for entries of up to MaxEntry bytes.
func Chain(prev [32]byte, entry []byte) [32]byte {
	b := make([]byte, 0, len(chainLabel)+len(prev)+MaxEntry)
	b = append(b, chainLabel...)
	b = append(b, prev[:]...)
	return sha256.Sum256(append(b, entry...))
}

// CheckpointMessage is what the instance's key signs in a checkpoint entry: all
// of the entry but the signature, and the domain. A chain value alone does not
// cover the entry that carries it, and the last checkpoint of a trail has no
// successor to cover it.
func CheckpointMessage(domain [32]byte, instance wire.UUID, sequence uint64, time int64, head [32]byte) []byte {
	b := make([]byte, 0, len(checkpointLabel)+len(domain)+len(instance)+8+8+len(head))
	b = append(b, checkpointLabel...)
	b = append(b, domain[:]...)
	b = append(b, instance[:]...)
	b = binary.BigEndian.AppendUint64(b, sequence)
	b = binary.BigEndian.AppendUint64(b, uint64(time))
	return append(b, head[:]...)
}

// EndorsementMessage is what the domain key signs to say that publicKey, an
// Ed25519 key made in a TEE of the domain, signs the trail of the instance.
func EndorsementMessage(domain [32]byte, instance wire.UUID, publicKey [32]byte) []byte {
	b := make([]byte, 0, len(endorsementLabel)+len(domain)+len(instance)+len(publicKey))
	b = append(b, endorsementLabel...)
	b = append(b, domain[:]...)
	b = append(b, instance[:]...)
	return append(b, publicKey[:]...)
}
