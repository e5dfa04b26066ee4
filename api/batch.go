package api

// Limits of batches.
const (
	// MaxBatch is how many items a batch may have. Each is bounded as in the action on
	// one.
	MaxBatch = 1000
	// MaxBatchBody is how long the body of a batch may be by default, in bytes. One that
	// is too long for other actions needs a Content-Length, and begins with appid and
	// timestamp, or is sealed.
	MaxBatchBody = 8 << 20
	// MaxBatchVersions is how many versions of its key the ciphertexts of a batch may
	// name.
	MaxBatchVersions = 8
)

// IsBatch reports whether an action is one on many items, whose body may have
// MaxBatchBody bytes.
func IsBatch(action string) bool {
	switch action {
	case BatchEncrypt, BatchDecrypt, BatchReEncrypt, BatchSign, BatchVerify:
		return true
	}
	return false
}

// A Failure is what became of an item that failed: what the action on one would have
// answered.
type Failure struct {
	Index int `json:"index"` // from 0
	Error
}

// BatchEncryptRequest asks for Encrypt of each plaintext, or with an RSA or SM2 key
// for AsymmetricEncrypt. AADs has the additional data of each item, nil for none, and
// may be shorter than Plaintexts; or AAD is that of all items. RSA and SM2 keys have
// none.
type BatchEncryptRequest struct {
	KeyID       string      `json:"keyid"`
	Plaintexts  [][]byte    `json:"plaintexts"`
	AAD         []byte      `json:"aad,omitempty"`
	AADs        [][]byte    `json:"aads,omitempty"`
	PaddingMode PaddingMode `json:"padding_mode,omitempty"`
}

// BatchEncryptResult, of BatchEncrypt and BatchReEncrypt, has a ciphertext for each
// item, nil where it failed.
type BatchEncryptResult struct {
	Ciphertexts [][]byte  `json:"ciphertexts"`
	Failures    []Failure `json:"failures"` // by index
}

// BatchDecryptRequest is to BatchEncryptRequest as DecryptRequest, or
// AsymmetricDecryptRequest, is to EncryptRequest.
type BatchDecryptRequest struct {
	KeyID       string      `json:"keyid"`
	Ciphertexts [][]byte    `json:"ciphertexts"`
	AAD         []byte      `json:"aad,omitempty"`
	AADs        [][]byte    `json:"aads,omitempty"`
	PaddingMode PaddingMode `json:"padding_mode,omitempty"`
}

// BatchDecryptResult has a plaintext for each item, nil where it failed.
type BatchDecryptResult struct {
	Plaintexts [][]byte  `json:"plaintexts"`
	Failures   []Failure `json:"failures"` // by index
}

// ReEncryptRequest asks to decrypt a ciphertext under the symmetric key KeyID with
// AAD, and to encrypt the plaintext under the symmetric key UKeyID of the same tenant,
// or under the primary version of KeyID if there is none. UAAD is the new additional
// data, AAD if there is none. The plaintext does not leave the core.
type ReEncryptRequest struct {
	KeyID      string `json:"keyid"`
	Ciphertext []byte `json:"ciphertext"`
	AAD        []byte `json:"aad,omitempty"`
	UKeyID     string `json:"ukeyid,omitempty"`
	UAAD       []byte `json:"uaad,omitempty"`
}

// BatchReEncryptRequest asks for ReEncrypt of each ciphertext. AADs and UAADs are as in
// a BatchEncryptRequest; where an item has no new additional data, it keeps that which
// it has.
type BatchReEncryptRequest struct {
	KeyID       string   `json:"keyid"`
	Ciphertexts [][]byte `json:"ciphertexts"`
	AAD         []byte   `json:"aad,omitempty"`
	AADs        [][]byte `json:"aads,omitempty"`
	UKeyID      string   `json:"ukeyid,omitempty"`
	UAAD        []byte   `json:"uaad,omitempty"`
	UAADs       [][]byte `json:"uaads,omitempty"`
}

// BatchSignRequest asks for Sign of each message, all with the same parameters.
type BatchSignRequest struct {
	KeyID       string      `json:"keyid"`
	Messages    [][]byte    `json:"messages"`
	MessageType MessageType `json:"message_type"`
	DigestMode  DigestMode  `json:"digest_mode,omitempty"`
	PaddingMode PaddingMode `json:"padding_mode,omitempty"`
}

// BatchSignResult has a signature for each item, nil where it failed.
type BatchSignResult struct {
	Signatures [][]byte  `json:"signatures"`
	Failures   []Failure `json:"failures"` // by index
}

// BatchVerifyRequest is a BatchSignRequest with as many signatures to check.
type BatchVerifyRequest struct {
	BatchSignRequest
	Signatures [][]byte `json:"signatures"`
}

// BatchVerifyResult says of each signature whether it is one of the key over its
// message, nil where the item failed.
type BatchVerifyResult struct {
	Results  []*bool   `json:"results"`
	Failures []Failure `json:"failures"` // by index
}
