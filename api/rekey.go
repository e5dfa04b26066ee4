package api

import "encoding/binary"

// Actions of administrators that have the custodians of a domain give an app another
// owner, because its tenant has lost all credentials. The administrator only carries
// what is said: without as many custodians as the manifest demands nothing comes of it.
const (
	PrepareRekey = "PrepareRekey"
	RekeyApp     = "RekeyApp"
)

// Texts of refusals of re-keying.
const (
	MessageRekeyNobody = "no custodians" // the manifest names none
	MessageRekey       = "rekey error"   // too few approvals, or of something else
)

// Limits of re-keying.
const (
	MinRekeyLifetime  = 60         // seconds
	MaxRekeyLifetime  = 30 * 86400 // seconds
	RekeyApprovalSize = 32         // bytes
)

// A Rekey is what custodians approve: that the app has one owner from then on, the
// holder of a key pair, in place of all credentials that it had.
type Rekey struct {
	Domain    [32]byte
	AppID     [16]byte
	Revision  uint64 // of the app's record; with the next change of the app this is void
	Expires   int64  // Unix milliseconds
	DomainKey uint32 // version that approvals are made with
	Kind      string // "ed25519" or "p256"
	PublicKey []byte // as in CreateCredential
}

// Statement is what an approval binds: "ehsm/rekey/v1\0", domain id 32, appid 16,
// revision 8, expires 8, DomainKey version 4, length of the kind 1, kind, public key;
// big endian.
func (r *Rekey) Statement() []byte {
	b := append([]byte("ehsm/rekey/v1\x00"), r.Domain[:]...)
	b = append(b, r.AppID[:]...)
	b = binary.BigEndian.AppendUint64(b, r.Revision)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Expires))
	b = binary.BigEndian.AppendUint32(b, r.DomainKey)
	b = append(append(b, byte(len(r.Kind))), r.Kind...)
	return append(b, r.PublicKey...)
}

// PrepareRekeyRequest names the app and its new owner.
type PrepareRekeyRequest struct {
	AppID     string `json:"appid"`
	Kind      string `json:"kind"`
	PublicKey []byte `json:"publicKey"`
	Seconds   int    `json:"seconds"` // for custodians to approve in, MinRekeyLifetime to MaxRekeyLifetime
}

// PrepareRekeyResult has, for each custodian, the approval that only he can read.
type PrepareRekeyResult struct {
	Revision  uint64           `json:"revision"`
	Expires   int64            `json:"expires"`
	DomainKey uint32           `json:"domainKey"`
	Threshold int              `json:"threshold"` // how many of the custodians must approve
	List      []RekeyChallenge `json:"list"`
}

// A RekeyChallenge is an approval of RekeyApprovalSize bytes, encrypted to the key of a
// custodian by HPKE (RFC 9180, base mode, MLKEM768-X25519, HKDF-SHA-256, AES-256-GCM)
// with the Statement as info. To decrypt it, knowing the statement, and hand it out is
// to approve.
type RekeyChallenge struct {
	Custodian  string `json:"custodian"`
	Enc        []byte `json:"enc"`
	Ciphertext []byte `json:"ciphertext"`
}

// RekeyAppRequest repeats what was approved, with the approvals in any order.
type RekeyAppRequest struct {
	AppID     string   `json:"appid"`
	Kind      string   `json:"kind"`
	PublicKey []byte   `json:"publicKey"`
	Revision  uint64   `json:"revision"`
	Expires   int64    `json:"expires"`
	DomainKey uint32   `json:"domainKey"`
	Approvals [][]byte `json:"approvals"` // 1 to 64
}

// RekeyAppResult has the id of the owner's credential.
type RekeyAppResult struct {
	CredentialID string `json:"credentialId"`
}
