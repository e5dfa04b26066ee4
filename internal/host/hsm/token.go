//go:build pkcs11

package hsm

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/wire/hsm"
)

// ErrToken is returned where the HSM is not there or is not what it is taken for.
var ErrToken = errors.New("token of the HSM")

// wrapLabel comes before the context in what CKM_AES_GCM authenticates.
const wrapLabel = "ehsm/hsm-wrap/v1\x00"

const (
	nonceSize = 12 // bytes, of CKM_AES_GCM
	tagSize   = 16 // bytes
)

// A Token is a token of an HSM with a session in which its user is logged in. It
// finds both anew when something has gone wrong, so a token that was pulled and put
// back, or replaced, is no reason to start again. It is for one goroutine at a time.
type Token struct {
	settings config.HSM
	library  *pkcs11.Ctx // nil: there is no session
	session  pkcs11.SessionHandle
	// refused is the SHA-256 of a PIN that the token did not take. It is not tried
	// again, as tokens count and are locked in the end.
	refused [sha256.Size]byte
}

// NewToken returns the token of settings, to which it does not talk yet.
func NewToken(settings config.HSM) *Token { return &Token{settings: settings} }

// Close ends the session.
func (t *Token) Close() {
	if t.library == nil {
		return
	}
	t.library.CloseSession(t.session) // fails where the token has gone
	t.library.Finalize()
	t.library.Destroy()
	t.library = nil
}

// with calls f with a session, and once more with a new one if it fails in one that
// was open before.
func (t *Token) with(f func() error) error {
	old := t.library != nil
	if !old {
		if err := t.open(); err != nil {
			return err
		}
	}
	err := f()
	if err == nil {
		return nil
	}
	t.Close()
	if old {
		return t.with(f)
	}
	return err
}

func (t *Token) open() (err error) {
	library := pkcs11.New(t.settings.Module)
	if library == nil {
		return fmt.Errorf("%w: %s cannot be loaded, or is no PKCS#11 library", ErrToken, t.settings.Module)
	}
	defer func() {
		if err != nil {
			library.Finalize()
			library.Destroy()
		}
	}()
	if err = library.Initialize(); err != nil {
		return fmt.Errorf("%w: initialize %s: %w", ErrToken, t.settings.Module, err)
	}
	slot, err := find(library, t.settings.Token)
	if err != nil {
		return err
	}
	session, err := library.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return fmt.Errorf("%w: open a session: %w", ErrToken, err)
	}
	if err = t.login(library, session); err != nil {
		return err
	}
	t.library, t.session = library, session
	return nil
}

// find returns the slot of the one token with a label.
func find(library *pkcs11.Ctx, label string) (uint, error) {
	slots, err := library.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("%w: list the slots: %w", ErrToken, err)
	}
	var found []uint
	for _, slot := range slots {
		if info, err := library.GetTokenInfo(slot); err == nil && info.Label == label {
			found = append(found, slot)
		}
	}
	switch len(found) {
	case 0:
		return 0, fmt.Errorf("%w: none has the label %q", ErrToken, label)
	case 1:
		return found[0], nil
	}
	return 0, fmt.Errorf("%w: %d have the label %q", ErrToken, len(found), label)
}

// login tries the PIN, unless it is the one that the token has refused before.
func (t *Token) login(library *pkcs11.Ctx, session pkcs11.SessionHandle) error {
	pin, err := ReadPIN(t.settings.PINFile)
	if err != nil {
		return err
	}
	defer clear(pin)
	sum := sha256.Sum256(pin)
	if sum == t.refused {
		return fmt.Errorf("%w: the token has refused what is in %s; it is not tried again until it changes or ehsm-hsm starts again", ErrPIN, t.settings.PINFile)
	}
	switch err := library.Login(session, pkcs11.CKU_USER, string(pin)); {
	case err == nil:
		return nil
	case errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)), errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_LEN_RANGE)), errors.Is(err, pkcs11.Error(pkcs11.CKR_PIN_INVALID)):
		t.refused = sum
		return fmt.Errorf("%w: the token refuses it: %w", ErrPIN, err)
	default:
		return fmt.Errorf("%w: log in: %w", ErrToken, err)
	}
}

// key returns the one key with a label, which must be fit for m.
func (t *Token) key(label string, m hsm.Mechanism) (pkcs11.ObjectHandle, error) {
	found, err := t.keys(label)
	if err != nil {
		return 0, err
	}
	switch len(found) {
	case 0:
		return 0, fmt.Errorf("%w: there is no %q", ErrKey, label)
	case 1:
	default:
		return 0, fmt.Errorf("%w: %d have the label %q", ErrKey, len(found), label)
	}
	facts, err := t.facts(found[0])
	if err != nil {
		return 0, err
	}
	return found[0], facts.Check(m)
}

// keys returns some of the secret keys with a label.
func (t *Token) keys(label string) ([]pkcs11.ObjectHandle, error) {
	err := t.library.FindObjectsInit(t.session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
	})
	if err != nil {
		return nil, fmt.Errorf("%w: find %q: %w", ErrKey, label, err)
	}
	found, _, err := t.library.FindObjects(t.session, 8)
	if err := errors.Join(err, t.library.FindObjectsFinal(t.session)); err != nil {
		return nil, fmt.Errorf("%w: find %q: %w", ErrKey, label, err)
	}
	return found, nil
}

// facts asks for each attribute alone: a token that lacks one says nothing of the
// others.
func (t *Token) facts(key pkcs11.ObjectHandle) (f Facts, err error) {
	number := func(attribute uint) uint {
		got, e := t.library.GetAttributeValue(t.session, key, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
		if e == nil && (len(got) != 1 || len(got[0].Value) == 0 || len(got[0].Value) > 8) {
			e = errors.New("no value")
		}
		if e != nil {
			err = errors.Join(err, fmt.Errorf("%w: attribute %#x: %w", ErrKey, attribute, e))
			return 0
		}
		return native(got[0].Value)
	}
	is := func(attribute uint) bool { return number(attribute) == 1 }
	f = Facts{
		AES: number(pkcs11.CKA_KEY_TYPE) == pkcs11.CKK_AES, Bytes: number(pkcs11.CKA_VALUE_LEN), Private: is(pkcs11.CKA_PRIVATE),
		Sensitive: is(pkcs11.CKA_SENSITIVE), AlwaysSensitive: is(pkcs11.CKA_ALWAYS_SENSITIVE),
		Extractable: is(pkcs11.CKA_EXTRACTABLE), NeverExtractable: is(pkcs11.CKA_NEVER_EXTRACTABLE),
		MayEncrypt: is(pkcs11.CKA_ENCRYPT), MayDecrypt: is(pkcs11.CKA_DECRYPT), MayWrapKey: is(pkcs11.CKA_WRAP), MayUnwrapKey: is(pkcs11.CKA_UNWRAP),
	}
	return f, err
}

// mechanism is that of new bundles.
func (t *Token) mechanism() hsm.Mechanism {
	if t.settings.Mechanism == config.MechanismKeyWrapPad {
		return hsm.KeyWrapPad
	}
	return hsm.GCM
}

// Wrap implements Wrapper.
func (t *Token) Wrap(label string, context [hsm.ContextSize]byte, key []byte) (w hsm.Wrapped, err error) {
	if label == "" {
		label = t.settings.Keys[0]
	}
	if err := t.configured(label); err != nil {
		return hsm.Wrapped{}, err
	}
	w = hsm.Wrapped{Label: label, Mechanism: t.mechanism()}
	err = t.with(func() error {
		handle, err := t.key(label, w.Mechanism)
		if err != nil {
			return err
		}
		if w.Mechanism == hsm.GCM {
			w.Blob, err = t.encrypt(handle, context, key)
		} else {
			w.Blob, err = t.wrapKey(handle, key)
		}
		if err == nil && len(w.Blob) > hsm.MaxBlob {
			return fmt.Errorf("%w: %d bytes wrap 32, limit %d", ErrToken, len(w.Blob), hsm.MaxBlob)
		}
		return err
	})
	return w, err
}

// Unwrap implements Wrapper.
func (t *Token) Unwrap(context [hsm.ContextSize]byte, w hsm.Wrapped) (key []byte, err error) {
	if err := t.configured(w.Label); err != nil {
		return nil, err
	}
	err = t.with(func() error {
		handle, err := t.key(w.Label, w.Mechanism)
		if err != nil {
			return err
		}
		if w.Mechanism == hsm.GCM {
			key, err = t.decrypt(handle, context, w.Blob)
		} else {
			key, err = t.unwrapKey(handle, w.Blob)
		}
		return err
	})
	return key, err
}

// configured refuses labels that the operator of the host has not named.
func (t *Token) configured(label string) error {
	switch {
	case !slices.Contains(t.settings.Keys, label):
		return fmt.Errorf("%w: %q is not in EHSM_HSM_KEYS", ErrKey, label)
	case !hsm.ValidLabel(label):
		return fmt.Errorf("%w: %q is no label", ErrKey, label)
	}
	return nil
}

func gcm(nonce []byte, context [hsm.ContextSize]byte) *pkcs11.GCMParams {
	return pkcs11.NewGCMParams(nonce, append([]byte(wrapLabel), context[:]...), 8*tagSize)
}

func (t *Token) encrypt(handle pkcs11.ObjectHandle, context [hsm.ContextSize]byte, key []byte) ([]byte, error) {
	nonce := make([]byte, nonceSize)
	rand.Read(nonce) // never fails
	params := gcm(nonce, context)
	defer params.Free()
	if err := t.library.EncryptInit(t.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, handle); err != nil {
		return nil, fmt.Errorf("%w: encrypt: %w", ErrToken, err)
	}
	sealed, err := t.library.Encrypt(t.session, key)
	if err != nil {
		return nil, fmt.Errorf("%w: encrypt: %w", ErrToken, err)
	}
	// Some HSMs choose the nonce themselves.
	if nonce = params.IV(); len(nonce) != nonceSize {
		return nil, fmt.Errorf("%w: it has chosen a nonce of %d bytes, want %d", ErrToken, len(nonce), nonceSize)
	}
	return append(nonce, sealed...), nil
}

func (t *Token) decrypt(handle pkcs11.ObjectHandle, context [hsm.ContextSize]byte, blob []byte) ([]byte, error) {
	if want := nonceSize + hsm.KeySize + tagSize; len(blob) != want {
		return nil, fmt.Errorf("%w: %d bytes are wrapped with CKM_AES_GCM, want %d", ErrToken, len(blob), want)
	}
	params := gcm(blob[:nonceSize], context)
	defer params.Free()
	if err := t.library.DecryptInit(t.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, handle); err != nil {
		return nil, fmt.Errorf("%w: decrypt: %w", ErrToken, err)
	}
	key, err := t.library.Decrypt(t.session, blob[nonceSize:])
	if err != nil {
		return nil, fmt.Errorf("%w: decrypt: %w", ErrToken, err)
	}
	return key, nil
}

// wrapKey has the token make an object of the key for a moment: the mechanism takes
// no bytes.
func (t *Token) wrapKey(handle pkcs11.ObjectHandle, key []byte) ([]byte, error) {
	object, err := t.library.CreateObject(t.session, append(passing(), pkcs11.NewAttribute(pkcs11.CKA_VALUE, key)))
	if err != nil {
		return nil, fmt.Errorf("%w: create the object to wrap: %w", ErrToken, err)
	}
	defer t.library.DestroyObject(t.session, object)
	blob, err := t.library.WrapKey(t.session, keyWrap(), handle, object)
	if err != nil {
		return nil, fmt.Errorf("%w: wrap: %w", ErrToken, err)
	}
	return blob, nil
}

func (t *Token) unwrapKey(handle pkcs11.ObjectHandle, blob []byte) ([]byte, error) {
	object, err := t.library.UnwrapKey(t.session, keyWrap(), handle, blob, passing())
	if err != nil {
		return nil, fmt.Errorf("%w: unwrap: %w", ErrToken, err)
	}
	defer t.library.DestroyObject(t.session, object)
	got, err := t.library.GetAttributeValue(t.session, object, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
	if err != nil || len(got) != 1 {
		return nil, fmt.Errorf("%w: read what was unwrapped: %w", ErrToken, err)
	}
	return got[0].Value, nil
}

func keyWrap() []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}
}

// passing are the attributes of what is wrapped, an object of the session.
func passing() []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true),
	}
}
