package hsm

import (
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/wire/hsm"
)

// ErrKey is returned for a key of a token that must not wrap, with the reason.
var ErrKey = errors.New("key of the HSM")

// Facts are what a token says of a key, by attributes of PKCS#11.
type Facts struct {
	AES                                              bool // CKA_KEY_TYPE
	Bytes                                            uint // CKA_VALUE_LEN
	Private, Sensitive, AlwaysSensitive              bool
	Extractable, NeverExtractable                    bool
	MayEncrypt, MayDecrypt, MayWrapKey, MayUnwrapKey bool // CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP
}

// Check refuses a key that has been outside of the token or could come out of it,
// and one that cannot do what m takes. Errors: ErrKey.
func (f Facts) Check(m hsm.Mechanism) error {
	for _, rule := range []struct {
		broken bool
		why    string
	}{
		{!f.AES || f.Bytes != 32, "it is no AES key of 32 bytes"},
		{f.Extractable, "it is extractable"},
		{!f.NeverExtractable, "it has been extractable, or came from outside"},
		{!f.Sensitive, "it is not sensitive"},
		{!f.AlwaysSensitive, "it has not always been sensitive"},
		{!f.Private, "it is there without a login"},
		{m == hsm.GCM && !(f.MayEncrypt && f.MayDecrypt), "it may not encrypt and decrypt, which CKM_AES_GCM takes"},
		{m == hsm.KeyWrapPad && !(f.MayWrapKey && f.MayUnwrapKey), "it may not wrap and unwrap, which CKM_AES_KEY_WRAP_PAD takes"},
		{m != hsm.GCM && m != hsm.KeyWrapPad, "nobody knows the mechanism"},
	} {
		if rule.broken {
			return fmt.Errorf("%w: %s; make one with ehsm-hsm init-key", ErrKey, rule.why)
		}
	}
	return nil
}
