package escrow

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

const (
	shareMagic  = "ehsm/recovery-share/v1\n"
	shareLabel  = "ehsm/recovery-share/v1\x00"
	answerMagic = "ehsm/restore-answer/v1\n"
	answerLabel = "ehsm/restore-answer/v1\x00"

	maxMembers = 64
	maxName    = 64 // bytes
)

// A Share is one custodian's part of a recovery key, encrypted to the custodian's
// public key.
type Share struct {
	Domain    genesis.ID
	Key       [32]byte // KeyID of the recovery key
	Index     uint8    // 1 to Members; the point at which the share was taken
	Threshold uint8    // how many shares give the recovery key
	Members   uint8    // how many there are, at most 64
	Custodian string   // name
	Sealed    []byte   // the share, two scalars of ristretto255, encrypted
}

// ShareFile is the name under which the TEE leaves the share of a custodian: made
// for the genesis, version 1, or for a later manifest.
func ShareFile(custodian string, version uint64) string {
	if version == 1 {
		return "share-" + custodian + ".sealed"
	}
	return fmt.Sprintf("share-%s-m%d.sealed", custodian, version)
}

// Info is what the encryption binds: everything that the share says of itself.
func (s *Share) Info() []byte { return s.head([]byte(shareLabel)) }

func (s *Share) head(dst []byte) []byte {
	dst = append(dst, s.Domain[:]...)
	dst = append(dst, s.Key[:]...)
	dst = append(dst, s.Index, s.Threshold, s.Members)
	return pack.AppendString(dst, s.Custodian)
}

// Encode returns the one encoding of s.
func (s *Share) Encode() []byte { return append(s.head([]byte(shareMagic)), s.Sealed...) }

// ParseShare reads what Encode wrote, and nothing else. It verifies nothing, as only
// the custodian can open the share. Errors: ErrFile.
func ParseShare(b []byte) (*Share, error) {
	r, err := begin(b, shareMagic, "share of a recovery key")
	if err != nil {
		return nil, err
	}
	s := new(Share)
	r.Array(s.Domain[:])
	r.Array(s.Key[:])
	s.Index, s.Threshold, s.Members = r.Uint8(), r.Uint8(), r.Uint8()
	s.Custodian = name(r)
	s.Sealed = r.Fixed(sealedShare)
	if s.Members > maxMembers || s.Index < 1 || s.Index > s.Members || s.Threshold < 1 || s.Threshold > s.Members {
		r.Fail("share %d of %d, of which it takes %d", s.Index, s.Members, s.Threshold)
	}
	return s, end(r, "share of a recovery key")
}

func name(r *pack.Reader) string {
	name := r.String(maxName)
	if name == "" {
		r.Fail("it names no custodian")
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c > '~' {
			r.Fail("the custodian's name has characters that do not print")
		}
	}
	return name
}

// Verify checks that a share was made for a custodian of s: the domain, the
// recovery key in force, and the custodian's name and place. What is encrypted in it the
// custodian sees. Errors: ErrDomain, ErrNoRecovery, ErrRecoveryKey.
func (s *Share) Verify(state *manifest.State) error {
	switch {
	case s.Domain != state.Domain: // check: share-domain
		return fmt.Errorf("share %w: it is %s, this is %s", ErrDomain, s.Domain, state.Domain)
	case state.Recovery == nil || state.Custodians == nil:
		return ErrNoRecovery
	case s.Key != KeyID(state.Recovery): // check: share-recovery-key
		return fmt.Errorf("share of %s %w", s.Custodian, ErrRecoveryKey)
	}
	q := state.Custodians
	if int(s.Threshold) != q.Threshold || int(s.Members) != len(q.Members) || q.Members[s.Index-1].Name != s.Custodian {
		return fmt.Errorf("%w: share %d of %d of %s is not as the manifest has it", ErrFile, s.Index, s.Members, s.Custodian)
	}
	return nil
}

// An Answer is a share that a custodian has released to the TEE of one restoration.
type Answer struct {
	Domain    genesis.ID
	Session   [32]byte // SHA-256 of the session key
	Index     uint8    // of the share
	Custodian string
	Sealed    []byte // the share, encrypted to the session key
}

// SessionID names the key of a restoration.
func SessionID(key []byte) [32]byte { return sha256.Sum256(key) }

// Info is what the encryption binds.
func (a *Answer) Info() []byte { return a.head([]byte(answerLabel)) }

func (a *Answer) head(dst []byte) []byte {
	dst = append(dst, a.Domain[:]...)
	dst = append(dst, a.Session[:]...)
	dst = append(dst, a.Index)
	return pack.AppendString(dst, a.Custodian)
}

// Encode returns the one encoding of a.
func (a *Answer) Encode() []byte { return append(a.head([]byte(answerMagic)), a.Sealed...) }

// ParseAnswer reads what Encode wrote, and nothing else. Errors: ErrFile.
func ParseAnswer(b []byte) (*Answer, error) {
	r, err := begin(b, answerMagic, "answer of a custodian")
	if err != nil {
		return nil, err
	}
	a := new(Answer)
	r.Array(a.Domain[:])
	r.Array(a.Session[:])
	a.Index = r.Uint8()
	a.Custodian = name(r)
	a.Sealed = r.Fixed(sealedShare)
	if a.Index < 1 || a.Index > maxMembers {
		r.Fail("share %d", a.Index)
	}
	return a, end(r, "answer of a custodian")
}

// IsShare reports whether a file says that it is a share.
func IsShare(b []byte) bool { return bytes.HasPrefix(b, []byte(shareMagic)) }
