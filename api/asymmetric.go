package api

// More limits, in bytes before base64.
const (
	MaxMessage   = 6144 // of Sign and Verify
	MaxSM2       = 255  // plaintext that an SM2 key encrypts
	MaxWrapped   = 6144 // encrypted data key or key material
	MaxSignature = 512  // of Verify
	MaxPublicKey = 8192 // UTF-16 units of UPubKey
)

// AsymmetricEncryptRequest asks to encrypt under an RSA or SM2 key: with RSA of
// k bytes at most k-11 bytes under PKCS1 and k-66 under OAEP, with SM2 MaxSM2.
// PaddingMode is required for RSA keys.
type AsymmetricEncryptRequest struct {
	KeyID       string      `json:"keyid"`
	Plaintext   []byte      `json:"plaintext"`
	PaddingMode PaddingMode `json:"padding_mode,omitempty"`
}

// AsymmetricDecryptRequest asks to decrypt, with the padding that was used.
type AsymmetricDecryptRequest struct {
	KeyID       string      `json:"keyid"`
	Ciphertext  []byte      `json:"ciphertext"`
	PaddingMode PaddingMode `json:"padding_mode,omitempty"`
}

// SignRequest asks to sign 1 to MaxMessage bytes. MessageType is required;
// without DigestMode it is SHA256, SM3 for SM2 keys. PaddingMode, PKCS1 or PSS,
// is required for RSA keys.
type SignRequest struct {
	KeyID       string      `json:"keyid"`
	Message     []byte      `json:"message"`
	MessageType MessageType `json:"message_type"`
	DigestMode  DigestMode  `json:"digest_mode,omitempty"`
	PaddingMode PaddingMode `json:"padding_mode,omitempty"`
}

// SignResult has the signature: with RSA as long as the modulus, with EC and SM2
// an ASN.1 SEQUENCE of r and s, with HMAC 32 bytes.
type SignResult struct {
	Signature []byte `json:"signature"`
}

// VerifyRequest is a SignRequest with the signature to check.
type VerifyRequest struct {
	SignRequest
	Signature []byte `json:"signature"`
}

// VerifyResult says whether the signature is one of the key over the message.
type VerifyResult struct {
	Result bool `json:"result"`
}

// GetPublicKeyResult has the public key as PEM: "RSA PUBLIC KEY" (PKCS#1) of RSA
// keys, "PUBLIC KEY" (SubjectPublicKeyInfo) of EC and SM2 keys.
type GetPublicKeyResult struct {
	PubKey string `json:"pubkey"`
	KeyID  string `json:"keyid"`
}

// ExportDataKeyRequest asks to decrypt a data key under KeyID, with the AAD it
// was made with, and to encrypt it to exactly one of UKeyID, an RSA or SM2 key of
// the tenant, and UPubKey, an RSA (2048 bits or more) or SM2 public key as PEM.
// RSA targets use OAEP unless PaddingMode says PKCS1.
type ExportDataKeyRequest struct {
	KeyID       string      `json:"keyid"`
	DataKey     []byte      `json:"olddatakey_base"`
	UKeyID      string      `json:"ukeyid,omitempty"`
	UPubKey     string      `json:"upubkey,omitempty"`
	AAD         []byte      `json:"aad,omitempty"`
	PaddingMode PaddingMode `json:"padding_mode,omitempty"`
}

// ExportDataKeyResult has the data key encrypted to the target.
type ExportDataKeyResult struct {
	NewDataKey []byte `json:"newdatakey"`
}

// GetParametersForImportRequest opens an import session of a key of external
// origin, in place of the last one. KeySpec is that of the key pair to wrap with:
// RSA2048, RSA3072 or RSA4096.
type GetParametersForImportRequest struct {
	KeyID   string  `json:"keyid"`
	KeySpec KeySpec `json:"keyspec"`
}

// GetParametersForImportResult has the public key to wrap the material with, as
// PEM (PKCS#1), and the token of the session, which holds for 24 hours.
type GetParametersForImportResult struct {
	PubKey      string `json:"pubkey"`
	ImportToken string `json:"importToken"`
}

// ImportKeyMaterialRequest brings the material of a key: its raw bytes, 16, 24 or
// 32 as the key's spec needs, encrypted with the session's key pair under PKCS1 or
// OAEP.
type ImportKeyMaterialRequest struct {
	KeyID       string      `json:"keyid"`
	PaddingMode PaddingMode `json:"padding_mode"`
	KeyMaterial []byte      `json:"key_material"`
	ImportToken string      `json:"importToken"`
}

// ImportKeyMaterialResult has true after an import.
type ImportKeyMaterialResult struct {
	Result bool `json:"result"`
}
