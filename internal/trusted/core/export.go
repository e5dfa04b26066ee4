package core

import (
	"errors"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
)

// A target encrypts a data key for its new owner: a public key that the caller
// brought, or the public half of one of the tenant's keys.
type target interface {
	Encrypt(plaintext []byte, p primitive.Padding) ([]byte, error)
}

// exportDataKey opens a data key under one key and encrypts it for a target. The
// data key does not leave the core in between.
func (x *request) exportDataKey() (result, error) {
	k, err := x.usableKey(false)
	if err != nil {
		return result{}, err
	}
	to, p, err := x.exportTarget()
	if err != nil {
		return result{}, err
	}
	var sealed []byte // stays empty for what is no base64, and does not open then
	if isBase64(x.payload.text("olddatakey_base")) {
		sealed = x.payload.bytes("olddatakey_base")
	}
	dataKey, err := x.openWith(k, sealed)
	if err != nil {
		return result{}, inExport(err)
	}
	defer clear(dataKey)
	exported, err := to.Encrypt(dataKey, p)
	if err != nil {
		return result{}, inExport(err)
	}
	return result{textSuccess, object{}.base64("newdatakey", exported).end()}, nil
}

// inExport is the answer to a data key that does not open or does not fit. The
// padding has been checked, so that a parameter not allowed is the length.
func inExport(err error) error {
	if r := (*refusal)(nil); errors.As(err, &r) && r.message == textDecryption || errors.Is(err, primitive.ErrParameter) {
		return bad("Failed, Please confirm that your parameters are correct.", "data key does not open or fit")
	}
	return notRefusal(err, "export failed")
}

// exportTarget finds the one target that a request names, and the padding to use
// with it.
func (x *request) exportTarget() (target, primitive.Padding, error) {
	id, text := x.payload.text("ukeyid"), x.payload.text("upubkey")
	switch {
	case id == "" && text == "":
		return nil, 0, errEmpty("ukeyid")
	case id != "" && text != "": // check: one-target
		return nil, 0, errTarget("two targets")
	case text != "":
		return x.broughtTarget(text)
	}
	return x.ownTarget(id)
}

func (x *request) broughtTarget(text string) (target, primitive.Padding, error) {
	key, err := primitive.ParsePublicTarget(text)
	if err != nil {
		return nil, 0, errTarget("public key not allowed")
	}
	p, err := x.exportPadding(key.RSA())
	return key, p, err
}

// ownTarget opens one of the tenant's keys as a target. The audit entry is about
// the key that is exported from, so x goes on naming that one.
func (x *request) ownTarget(id string) (target, primitive.Padding, error) {
	key, version := x.key, x.keyVersion
	defer func() { x.key, x.keyVersion = key, version }()
	k, err := x.loadKey(id)
	switch {
	case err != nil:
		return nil, 0, err
	case k == nil:
		return nil, 0, errKeyID()
	case onHold(k.value.State): // check: target-state
		return nil, 0, errDisabled()
	}
	spec := k.value.Spec
	switch {
	case !spec.Asymmetric(): // check: target-kind
		return nil, 0, errTarget("target has no public half")
	case !spec.RSA() && spec != primitive.SM2:
		return nil, 0, errServer("EC keys do not encrypt")
	case k.value.Usage != record.EncryptDecrypt: // check: target-usage
		return nil, 0, errTarget("target does not encrypt")
	}
	p, err := x.exportPadding(spec.RSA())
	if err != nil {
		return nil, 0, err
	}
	private, err := x.private(k, record.EncryptDecrypt, p)
	if err != nil {
		return nil, 0, err
	}
	return private, p, nil
}

// exportPadding is OAEP unless the request names another. SM2 has none.
func (x *request) exportPadding(rsa bool) (primitive.Padding, error) {
	if !rsa {
		return primitive.PaddingNone, nil
	}
	p := primitive.PaddingOAEP
	if name := x.payload.text("padding_mode"); name != "" {
		p, _ = primitive.ParsePadding(name) // validated
	}
	switch {
	case p != primitive.PaddingPKCS1 && p != primitive.PaddingOAEP:
		return 0, errServer("padding does not encrypt")
	case x.core.paddingOff(p): // check: export-padding-off
		return 0, errServer("padding is switched off")
	}
	return p, nil
}

func errTarget(reason string) *refusal { return bad("key invalid.", reason) }
