package core

import (
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
)

// A reEncryption is from one symmetric key to another, or to the primary version of
// the same one. The plaintext stays here.
type reEncryption struct {
	from *cached[record.Key]
	to   *primitive.Symmetric
	// What the specs of the two keys make of additional data.
	ignored, dropped bool
}

// reEncryption loads both keys and holds them to what Decrypt and Encrypt ask of them.
func (x *request) reEncryption() (r reEncryption, err error) {
	x.aboutTarget()
	if r.from, err = x.usableKey(false); err != nil {
		return r, err
	}
	if err = ciphers(&r.from.value); err != nil {
		return r, err
	}
	r.ignored = ignoresAdditionalData(r.from.value.Spec)
	err = x.asideOf(func() error {
		target, err := x.target()
		if err != nil {
			return err
		}
		r.dropped = ignoresAdditionalData(target.value.Spec)
		r.to, err = x.protecting(target)
		return err
	})
	return r, inTarget(err)
}

// target returns the key to encrypt under: another one, or the one to decrypt with if
// that may still protect data.
func (x *request) target() (*cached[record.Key], error) {
	if x.payload.text("ukeyid") == "" {
		return x.usableKey(true)
	}
	return x.usableKeyOf("ukeyid", true)
}

// aboutTarget has the audit entry name the key to encrypt under.
func (x *request) aboutTarget() {
	if id, ok := x.keyRecord(x.payload.text("ukeyid")); ok {
		x.remark = ", to " + id.ID.String()
	}
}

// asideOf runs something about another key than that which the audit entry is about,
// and has the entry add the version that was used of it.
func (x *request) asideOf(use func() error) error {
	key, version := x.key, x.keyVersion
	x.keyVersion = 0
	err := use()
	if err == nil {
		x.remark = fmt.Sprintf(", to %s/%d", x.key, x.keyVersion)
	}
	x.key, x.keyVersion = key, version
	return err
}

// inTarget has the reason of a refusal say that it is about the key to encrypt under.
func inTarget(err error) error {
	var r *refusal
	if !errors.As(err, &r) {
		return err
	}
	about := *r
	about.reason = "target: " + r.reason
	return &about
}

// additional are the additional data to open an item with, and to protect it with: what
// is new, or else what it had.
func (r *reEncryption) additional(before, after []byte) (open, protect []byte) {
	open, protect = before, after
	if len(protect) == 0 {
		protect = before
	}
	if r.ignored {
		open = nil
	}
	if r.dropped {
		protect = nil
	}
	return open, protect
}

func (x *request) reEncrypt() (result, error) {
	r, err := x.reEncryption()
	if err != nil {
		return result{}, err
	}
	before, after := r.additional(x.payload.bytes("aad"), x.payload.bytes("uaad"))
	plaintext, err := x.openAs(r.from, x.payload.bytes("ciphertext"), before)
	if err != nil {
		return result{}, err
	}
	defer clear(plaintext)
	ciphertext, err := r.to.Encrypt(nil, plaintext, after)
	if err != nil {
		return result{}, errServer("encryption")
	}
	return result{textSuccess, object{}.base64("ciphertext", ciphertext).end()}, nil
}

func (x *request) batchReEncrypt() (result, error) {
	r, err := x.reEncryption()
	if err != nil {
		return result{}, err
	}
	ciphertexts := x.texts("ciphertexts")
	n := ciphertexts.len()
	before, err := x.additionalOf("aad", "aads", n)
	if err != nil {
		return result{}, err
	}
	after, err := x.additionalOf("uaad", "uaads", n)
	if err != nil {
		return result{}, err
	}
	o, err := x.opener(r.from, ciphertexts)
	if err != nil {
		return result{}, err
	}
	defer o.close()
	longest, total := ciphertexts.size()
	room := make([]byte, 0, longest+primitive.MaxOverhead)
	b := x.newBatch("ciphertexts", encodedSize(n, total+n*primitive.MaxOverhead))
	for i := range n {
		err := b.item(func(dst []byte) ([]byte, error) {
			open, protect := r.additional(before.of(i), after.of(i))
			plaintext, err := o.open(i, open)
			if err != nil {
				return nil, err
			}
			ciphertext, err := r.to.Encrypt(room[:0], plaintext, protect)
			if err != nil {
				return nil, errServer("encryption")
			}
			return appendBase64(dst, ciphertext), nil
		})
		if err != nil {
			return result{}, err
		}
	}
	return b.end()
}
