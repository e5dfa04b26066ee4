package api

// Limits of members, in bytes before base64.
const (
	MaxPlaintext = 6144 // of Encrypt
	MaxAAD       = 6144
	MaxDataKey   = 1024
)

// CreateKeyRequest asks for a new key. All members but PaddingModes are required.
type CreateKeyRequest struct {
	KeySpec  KeySpec  `json:"keyspec"`
	Origin   Origin   `json:"origin"`
	KeyUsage KeyUsage `json:"keyusage"`

	// PaddingModes are the only ones an RSA key admits; all that fit its usage if
	// there are none. They cannot be changed later.
	PaddingModes []PaddingMode `json:"padding_modes,omitempty"`
}

// CreateKeyResult names the new key by a lower-case UUID of 36 characters.
type CreateKeyResult struct {
	KeyID string `json:"keyid"`
}

// KeyRequest names the key for EnableKey, DisableKey and DeleteKey, whose
// results are Empty, for GetPublicKey, RotateKey, ListKeyVersions, DescribeKey
// and CancelKeyDeletion.
type KeyRequest struct {
	KeyID string `json:"keyid"`
}

// EncryptRequest asks to encrypt 1 to MaxPlaintext bytes under a symmetric key.
// AAD, at most MaxAAD bytes, is authenticated by the AES-GCM specs and ignored
// by the SM4 specs.
type EncryptRequest struct {
	KeyID      string `json:"keyid"`
	Plaintext  []byte `json:"plaintext"`
	AAD        []byte `json:"aad,omitempty"`
	KeyVersion uint32 `json:"keyversion,omitempty"` // 0: the primary version
}

// EncryptResult has the ciphertext, whose format is the server's own.
type EncryptResult struct {
	Ciphertext []byte `json:"ciphertext"`
}

// DecryptRequest asks to decrypt what Encrypt, GenerateDataKey or
// GenerateDataKeyWithoutPlaintext returned, with the same key and AAD.
type DecryptRequest struct {
	KeyID      string `json:"keyid"`
	Ciphertext []byte `json:"ciphertext"`
	AAD        []byte `json:"aad,omitempty"`
}

// DecryptResult has the plaintext.
type DecryptResult struct {
	Plaintext []byte `json:"plaintext"`
}

// DataKeyRequest asks GenerateDataKey or GenerateDataKeyWithoutPlaintext for
// KeyLen random bytes, 1 to MaxDataKey, encrypted under a symmetric key.
type DataKeyRequest struct {
	KeyID  string `json:"keyid"`
	KeyLen int    `json:"keylen"`
	AAD    []byte `json:"aad,omitempty"`
}

// DataKeyResult has the data key encrypted and, of GenerateDataKey only, in
// plaintext.
type DataKeyResult struct {
	Plaintext  []byte `json:"plaintext,omitempty"`
	Ciphertext []byte `json:"ciphertext"`
}

// ListKeyResult has all keys of the tenant, at most 10000, in no defined order.
type ListKeyResult struct {
	List []Key `json:"list"`
}

// Key describes a key in a listing.
type Key struct {
	KeyID        string   `json:"keyid"`
	CreationDate int64    `json:"creationDate"`
	ExpireTime   int64    `json:"expireTime"` // NeverExpires if it does not
	Alias        string   `json:"alias"`
	KeySpec      KeySpec  `json:"keyspec"`
	KeyState     KeyState `json:"keyState"`
}

// GetVersionResult names the server's program and the commit it was built from.
type GetVersionResult struct {
	Version string `json:"version"`
	GitSHA  string `json:"git_sha"`
}

// EnrollResult has the credentials of a new tenant. APIKey is a secret that
// this type does not protect from being printed.
type EnrollResult struct {
	AppID  string `json:"appid"`
	APIKey string `json:"apikey"`
}
