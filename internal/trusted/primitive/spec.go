package primitive

import "fmt"

// Spec is a key spec. The numbers are persisted in sealed headers and bound
// into derivations, so they never change. The zero value is invalid.
type Spec uint8

// The key specs of the native API.
const (
	_         Spec = iota
	AESGCM128      // AES-GCM, 16-byte key
	AESGCM192      // AES-GCM, 24-byte key
	AESGCM256      // AES-GCM, 32-byte key
	RSA2048        // RSA, public exponent 65537
	RSA3072        // RSA, public exponent 65537
	RSA4096        // RSA, public exponent 65537
	ECP224         // ECDSA on secp224r1
	ECP256         // ECDSA on secp256r1
	ECP256K        // ECDSA on secp256k1
	ECP384         // ECDSA on secp384r1
	ECP521         // ECDSA on secp521r1
	SM2            // GB/T 32918 signature and encryption
	SM4CTR         // SM4 in counter mode, encrypt-then-MAC
	SM4CBC         // SM4 in CBC mode with PKCS#7 padding, encrypt-then-MAC
	HMAC           // HMAC-SHA-256, 32-byte key
)

// family says which code serves a spec.
type family uint8

const (
	_ family = iota
	familyAES
	familySM4
	familyHMAC
	familyRSA
	familyEC
	familySM2
)

// specs is indexed by Spec; material is the length in bytes of raw material, 0
// for asymmetric keys; bits is the modulus length of RSA keys.
var specs = [...]struct {
	name     string
	family   family
	material int
	bits     int
}{
	AESGCM128: {"EH_AES_GCM_128", familyAES, 16, 0},
	AESGCM192: {"EH_AES_GCM_192", familyAES, 24, 0},
	AESGCM256: {"EH_AES_GCM_256", familyAES, 32, 0},
	RSA2048:   {"EH_RSA_2048", familyRSA, 0, 2048},
	RSA3072:   {"EH_RSA_3072", familyRSA, 0, 3072},
	RSA4096:   {"EH_RSA_4096", familyRSA, 0, 4096},
	ECP224:    {"EH_EC_P224", familyEC, 0, 0},
	ECP256:    {"EH_EC_P256", familyEC, 0, 0},
	ECP256K:   {"EH_EC_P256K", familyEC, 0, 0},
	ECP384:    {"EH_EC_P384", familyEC, 0, 0},
	ECP521:    {"EH_EC_P521", familyEC, 0, 0},
	SM2:       {"EH_SM2", familySM2, 0, 0},
	SM4CTR:    {"EH_SM4_CTR", familySM4, 16, 0},
	SM4CBC:    {"EH_SM4_CBC", familySM4, 16, 0},
	HMAC:      {"EH_HMAC", familyHMAC, 32, 0},
}

// ParseSpec finds a spec by its native name, which is case-sensitive. It
// returns false for any other text.
func ParseSpec(name string) (Spec, bool) {
	for s, row := range specs {
		if row.name == name && name != "" {
			return Spec(s), true
		}
	}
	return 0, false
}

// Valid says whether s is one of the named specs.
func (s Spec) Valid() bool { return s != 0 && int(s) < len(specs) }

// String is the native name, or "Spec(n)" for an invalid spec.
func (s Spec) String() string {
	if !s.Valid() {
		return fmt.Sprintf("Spec(%d)", uint8(s))
	}
	return specs[s].name
}

func (s Spec) family() family {
	if !s.Valid() {
		return 0
	}
	return specs[s].family
}

// Symmetric says whether s encrypts messages under a secret key: AES-GCM and
// SM4. HMAC is neither symmetric in this sense nor asymmetric.
func (s Spec) Symmetric() bool { return s.family() == familyAES || s.family() == familySM4 }

// Asymmetric says whether s has a public key: RSA, EC and SM2.
func (s Spec) Asymmetric() bool {
	return s.family() == familyRSA || s.family() == familyEC || s.family() == familySM2
}

// RSA says whether s is an RSA spec, the only ones with a choice of padding.
func (s Spec) RSA() bool { return s.family() == familyRSA }

// MaterialLen is the length in bytes of the raw material of symmetric keys and
// of HMAC, and 0 for every other spec.
func (s Spec) MaterialLen() int {
	if !s.Valid() {
		return 0
	}
	return specs[s].material
}
