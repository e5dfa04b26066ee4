package api

// KeySpec names the algorithm and size of a key.
type KeySpec string

// The key specs. Only the AES and SM4 specs encrypt symmetrically and make data
// keys.
const (
	AESGCM128 KeySpec = "EH_AES_GCM_128"
	AESGCM192 KeySpec = "EH_AES_GCM_192"
	AESGCM256 KeySpec = "EH_AES_GCM_256"
	SM4CTR    KeySpec = "EH_SM4_CTR"
	SM4CBC    KeySpec = "EH_SM4_CBC"
	RSA2048   KeySpec = "EH_RSA_2048"
	RSA3072   KeySpec = "EH_RSA_3072"
	RSA4096   KeySpec = "EH_RSA_4096"
	ECP224    KeySpec = "EH_EC_P224"
	ECP256    KeySpec = "EH_EC_P256"
	ECP256K   KeySpec = "EH_EC_P256K" // secp256k1
	ECP384    KeySpec = "EH_EC_P384"
	ECP521    KeySpec = "EH_EC_P521"
	SM2       KeySpec = "EH_SM2"
	HMAC      KeySpec = "EH_HMAC" // HMAC-SHA-256 with 32 random bytes
)

// KeySpecs returns all key specs in the order of the documentation, the
// symmetric ciphers first.
func KeySpecs() []KeySpec {
	return []KeySpec{
		AESGCM128, AESGCM192, AESGCM256, SM4CTR, SM4CBC,
		RSA2048, RSA3072, RSA4096,
		ECP224, ECP256, ECP256K, ECP384, ECP521, SM2, HMAC,
	}
}

// Origin says who makes the material of a key.
type Origin string

// The origins of key material.
const (
	InternalKey Origin = "EH_INTERNAL_KEY" // random, made in the core
	ExternalKey Origin = "EH_EXTERNAL_KEY" // imported by the owner later
)

// KeyUsage says what a key may be used for. The core enforces it.
type KeyUsage string

// The usages of a key.
const (
	EncryptDecrypt KeyUsage = "EH_KEYUSAGE_ENCRYPT_DECRYPT"
	SignVerify     KeyUsage = "EH_KEYUSAGE_SIGN_VERIFY"
)

// MessageType says what the message of Sign and Verify is.
type MessageType string

// The types of a message. SM2 keys take both as the message; HMAC keys take
// RawMessage only.
const (
	RawMessage    MessageType = "EH_RAW"    // the message, which the core hashes
	DigestMessage MessageType = "EH_DIGEST" // its digest, of exactly the size of the DigestMode
)

// DigestMode names the hash of a signature.
type DigestMode string

// The digests. RSA keys refuse SM3, SM2 keys use it always, HMAC keys take
// SHA256 only.
const (
	SHA224 DigestMode = "EH_SHA_224"
	SHA256 DigestMode = "EH_SHA_256"
	SHA384 DigestMode = "EH_SHA_384"
	SHA512 DigestMode = "EH_SHA_512"
	SM3    DigestMode = "EH_SM3"
)

// PaddingMode names the padding of an RSA operation. Other keys ignore it.
type PaddingMode string

// The paddings: PKCS1 (v1.5) is for both usages, PSS signs, OAEP encrypts.
const (
	NoPadding PaddingMode = "EH_PAD_NONE" // refused for RSA keys
	PKCS1     PaddingMode = "EH_RSA_PKCS1"
	PSS       PaddingMode = "EH_RSA_PKCS1_PSS"  // salt as long as the digest, MGF1 with the same digest
	OAEP      PaddingMode = "EH_RSA_PKCS1_OAEP" // SHA-256, MGF1-SHA-256, empty label
)

// KeyState says whether a key is usable.
type KeyState int

// The states that listings show.
const (
	Disabled KeyState = 0
	Enabled  KeyState = 1
)

// String returns "enabled" or "disabled".
func (s KeyState) String() string {
	if s == Enabled {
		return "enabled"
	}
	return "disabled"
}

// NeverExpires is the ExpireTime of a key that does not expire: the end of the
// year 9999 in Unix milliseconds.
const NeverExpires int64 = 253402300799000
