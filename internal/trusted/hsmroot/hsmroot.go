// Package hsmroot has seal keys that take two: a TEE and a hardware security module.
// A domain with root hsm keeps its DomainKey under them.
//
// A Platform is another one, whose seal keys it derives once more: from the key of
// the TEE, which nobody outside ever has, and from a random key that the HSM wraps
// and that is stored so, as key information beside what is sealed. The bundle of
// package domainkey is under such a key and under nothing else, so that the HSM with
// its PIN has no way to the DomainKey, nor has the TEE without the HSM.
//
// It trusts the platform with its half. It trusts neither the HSM nor the sidecar
// and the socket on the way to it, all of which are the host's: what they answer
// changes which key comes out, and a wrong one opens nothing. It hides the half of
// the TEE and the derived key. The half of the HSM passes through the host in the
// clear; a host that keeps it no longer needs the HSM, but still the TEE.
package hsmroot

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/hsm"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// ErrHSM is returned for whatever goes wrong at the HSM or on the way to it. It is
// to be taken for a failed authentication; the reason is in the log of ehsm-hsm.
var ErrHSM = errors.New("the HSM does not give its half of the seal key")

const (
	infoV1    = 1
	sealLabel = "ehsm/hsm-seal/v1\x00"
)

// A Module is an HSM. It is safe for concurrent use.
type Module interface {
	// Wrap has the HSM wrap a key of 32 bytes, bound to context where its mechanism
	// can. label names the key that wraps; empty: the one for new bundles. The
	// caller keeps key. Errors: ErrHSM.
	Wrap(label string, context [hsm.ContextSize]byte, key secret.Bytes) (hsm.Wrapped, error)
	// Unwrap returns what was wrapped, 32 bytes. Errors: ErrHSM.
	Unwrap(context [hsm.ContextSize]byte, w hsm.Wrapped) (secret.Bytes, error)
}

// A Platform is a TEE whose seal keys take an HSM as well. It has no other abilities
// of the TEE than those of tee.Platform. It is safe for concurrent use.
type Platform struct {
	tee.Platform
	module Module
	label  string
}

// New returns p with m. New seal keys are wrapped with the key of the HSM that m has
// for new bundles.
func New(p tee.Platform, m Module) *Platform { return &Platform{Platform: p, module: m} }

// To returns the same platform, whose new seal keys are wrapped with the key label
// of the HSM.
func (p *Platform) To(label string) *Platform { return &Platform{p.Platform, p.module, label} }

// Root implements domainkey.Rooted.
func (p *Platform) Root() manifest.Root { return manifest.HSM }

// NewSealKey implements tee.KeyMaker. What the HSM has wrapped is unwrapped once
// before anything is sealed, so that an HSM which cannot do it is noticed while the
// old bundle still is there. Errors: ErrHSM, tee.ErrKeyRequest, tee.ErrNoSealKey.
func (p *Platform) NewSealKey(policy tee.Policy) (tee.KeyRequest, secret.Bytes, error) {
	q, inner, err := tee.NewSealKey(p.Platform, policy)
	if err != nil {
		return tee.KeyRequest{}, secret.Bytes{}, err
	}
	defer inner.Zero()
	half := secret.New(make([]byte, hsm.KeySize))
	defer half.Zero()
	rand.Read(half.Expose()) // never fails
	w, err := p.module.Wrap(p.label, q.KeyID, half)
	if err != nil {
		return tee.KeyRequest{}, secret.Bytes{}, err
	}
	again, err := p.module.Unwrap(q.KeyID, w)
	if err != nil {
		return tee.KeyRequest{}, secret.Bytes{}, err
	}
	defer again.Zero()
	if !again.Equal(half) { // check: wraps-right
		return tee.KeyRequest{}, secret.Bytes{}, fmt.Errorf("%w: it does not unwrap what it has wrapped", ErrHSM)
	}
	if p.label != "" && w.Label != p.label { // check: label-asked
		return tee.KeyRequest{}, secret.Bytes{}, fmt.Errorf("%w: it has wrapped with %q, asked for %q", ErrHSM, w.Label, p.label)
	}
	q.Info = appendInfo(w, q.Info)
	key, err := derive(q, inner, half)
	return q, key, err
}

// SealKey implements tee.Platform. The TEE is asked first: one that refuses is a
// reason not to bother the HSM. Errors: ErrHSM, tee.ErrKeyRequest, tee.ErrNoSealKey.
func (p *Platform) SealKey(q tee.KeyRequest) (secret.Bytes, error) {
	w, innerInfo, parseErr := parseInfo(q.Info)
	asked := q
	asked.Info = innerInfo
	if parseErr != nil {
		asked = tee.KeyRequest{} // for no key; but one without any says so
	}
	inner, err := p.Platform.SealKey(asked)
	if err == nil {
		defer inner.Zero()
	}
	switch {
	case errors.Is(err, tee.ErrNoSealKey): // check+: no-seal-key: the next case but one refuses as well, with less to say
		return secret.Bytes{}, fmt.Errorf("%w, and an HSM alone would serve its host", err)
	case parseErr != nil: // check: key-information
		return secret.Bytes{}, parseErr
	case err != nil: // check+: tee-half: derive refuses the key that is not there
		return secret.Bytes{}, err
	}
	half, err := p.module.Unwrap(q.KeyID, w)
	if err != nil { // check+: hsm-half: derive refuses the key that is not there
		return secret.Bytes{}, err
	}
	defer half.Zero()
	return derive(q, inner, half)
}

// derive returns the key that takes both halves. It is bound to the whole request,
// so that of nothing that the host could change two values give one key.
func derive(q tee.KeyRequest, inner, half secret.Bytes) (secret.Bytes, error) {
	if inner.Len() != 32 || inner.Equal(secret.New(make([]byte, 32))) { // check: tee-gives-a-key
		// Without this half, the other would be all that it takes.
		return secret.Bytes{}, fmt.Errorf("%w: the platform returned a key of %d bytes or of zeros", tee.ErrKeyRequest, inner.Len())
	}
	if half.Len() != hsm.KeySize { // check: hsm-gives-a-key
		return secret.Bytes{}, fmt.Errorf("%w: %d bytes, want %d", ErrHSM, half.Len(), hsm.KeySize)
	}
	both := append(append(make([]byte, 0, 64), inner.Expose()...), half.Expose()...)
	defer clear(both)
	info := append([]byte(sealLabel), byte(q.Policy))
	info = binary.BigEndian.AppendUint16(info, q.SVN)
	info = pack.AppendBytes(info, q.Info)
	key, err := hkdf.Key(sha256.New, both, q.KeyID[:], string(info), 32)
	return secret.New(key), err
}

// appendInfo makes the key information of a request: what the HSM has wrapped, and
// the information of the TEE.
func appendInfo(w hsm.Wrapped, inner []byte) []byte {
	return append(w.Append([]byte{infoV1}), inner...)
}

// parseInfo reads what appendInfo wrote. Errors: tee.ErrKeyRequest.
func parseInfo(info []byte) (w hsm.Wrapped, inner []byte, err error) {
	r := pack.NewReader(info)
	if v := r.Uint8(); r.Err() == nil && v != infoV1 {
		r.Fail("format %d is unknown", v)
	}
	w = hsm.ReadWrapped(r)
	inner = r.Rest()
	if r.Err() != nil {
		return hsm.Wrapped{}, nil, fmt.Errorf("%w: key information of an HSM: %w", tee.ErrKeyRequest, r.Err())
	}
	return w, inner, nil
}
