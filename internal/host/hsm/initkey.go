//go:build pkcs11

package hsm

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/ehsm-kms/ehsm/internal/wire/hsm"
)

// InitKey has the token make a key with a label, AES-256, that never leaves it, for
// the mechanism of the settings. Errors: ErrKey if there is one already, ErrToken,
// ErrPIN.
func (t *Token) InitKey(label string) error {
	if !hsm.ValidLabel(label) {
		return fmt.Errorf("%w: %q is no label", ErrKey, label)
	}
	return t.with(func() error {
		found, err := t.keys(label)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			return fmt.Errorf("%w: there is a %q already", ErrKey, label)
		}
		id := make([]byte, 16)
		copy(id, label)
		byMechanism := []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT}
		if t.mechanism() == hsm.KeyWrapPad {
			byMechanism = []uint{pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP}
		}
		template := []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
			pkcs11.NewAttribute(pkcs11.CKA_ID, id),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, hsm.KeySize),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
			pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
			pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
			pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		}
		for _, a := range []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY} {
			template = append(template, pkcs11.NewAttribute(a, a == byMechanism[0] || a == byMechanism[1]))
		}
		_, err = t.library.GenerateKey(t.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, template)
		if err != nil {
			return fmt.Errorf("%w: make a key: %w", ErrToken, err)
		}
		_, err = t.key(label, t.mechanism())
		return err
	})
}

// Check looks at all keys of the settings, and has the first of them wrap and unwrap
// something. Errors: ErrKey, ErrToken, ErrPIN.
func (t *Token) Check() error {
	err := t.with(func() error {
		for _, label := range t.settings.Keys {
			// An older key may be one of the other mechanism.
			_, err := t.key(label, hsm.GCM)
			if err != nil {
				_, err = t.key(label, hsm.KeyWrapPad)
			}
			if err != nil {
				return fmt.Errorf("%q: %w", label, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	probe := [hsm.KeySize]byte{1}
	w, err := t.Wrap("", probe, probe[:])
	if err != nil {
		return err
	}
	got, err := t.Unwrap(probe, w)
	if err == nil && !bytes.Equal(got, probe[:]) {
		err = fmt.Errorf("%w: it unwraps something else than it has wrapped", ErrToken)
	}
	return err
}

// native reads a CK_ULONG or a CK_BBOOL, in the byte order of the machine.
func native(b []byte) uint {
	switch len(b) {
	case 1:
		return uint(b[0])
	case 4:
		return uint(binary.NativeEndian.Uint32(b))
	case 8:
		return uint(binary.NativeEndian.Uint64(b))
	}
	return 0
}
