package domainkey

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Errors of changes of a Keyring.
var (
	// ErrForeign says that a Keyring does not continue another one.
	ErrForeign = errors.New("another DomainKey than the one that is held")
	// ErrCurrent says that a version cannot be the current one.
	ErrCurrent = errors.New("DomainKey version cannot be the current one")
)

// Holds reports whether a version is held.
func (k *Keyring) Holds(version uint32) bool {
	v := k.set.Load().versions
	return version > 0 && int64(version) <= int64(len(v)) && v[version-1].Len() > 0
}

// Advance makes a version that is held the current one. It never goes back.
// Errors: ErrCurrent, ErrNoVersion.
func (k *Keyring) Advance(version uint32) error {
	k.change.Lock()
	defer k.change.Unlock()
	switch {
	case !k.Holds(version):
		return fmt.Errorf("%w: version %d", ErrNoVersion, version)
	case version < k.Current():
		return fmt.Errorf("%w: %d after %d", ErrCurrent, version, k.Current())
	}
	k.current.Store(version)
	return nil
}

// Next returns the keys with one version more, which is random, in home.
func (k *Keyring) Next(home *secret.Home) (next *Keyring, err error) {
	secret.Do(func() {
		fresh := make([]byte, KeySize)
		rand.Read(fresh) // never fails
		next, err = k.with(home, secret.New(fresh))
	})
	return next, err
}

// with returns a copy in home that has one version more. It zeroes fresh.
func (k *Keyring) with(home *secret.Home, fresh secret.Bytes) (*Keyring, error) {
	defer fresh.Zero()
	if k.Newest() >= maxVersions {
		return nil, fmt.Errorf("%w: %d versions are the most", ErrCurrent, maxVersions)
	}
	k.Hold()
	defer k.Release()
	signing, err := copyTo(home, k.signing)
	if err != nil {
		return nil, err
	}
	var versions []secret.Bytes
	for _, v := range append(slices.Clone(k.set.Load().versions), fresh) {
		if v, err = copyTo(home, v); err != nil {
			return nil, err
		}
		versions = append(versions, v)
	}
	next, err := newKeyring(home, k.domain, versions, signing)
	if err != nil {
		return nil, err
	}
	next.root = k.root
	return next, nil
}

// copyTo returns a copy of key in home; of no key none.
func copyTo(home *secret.Home, key secret.Bytes) (secret.Bytes, error) {
	if key.Len() == 0 {
		return secret.Bytes{}, nil
	}
	c, err := home.Make(key.Len())
	if err == nil {
		copy(c.Expose(), key.Expose())
	}
	return c, err
}

// Extends reports whether k continues old: the same domain and signing key, at
// least as many versions, and of those that both hold each the same. Versions may
// have been forgotten on either side. Keys are compared in constant time.
func (k *Keyring) Extends(old *Keyring) bool {
	k.Hold()
	defer k.Release()
	if old != k {
		old.Hold()
		defer old.Release()
	}
	mine, theirs := k.set.Load().versions, old.set.Load().versions
	same := k.domain == old.domain && k.signing.Equal(old.signing) && len(mine) >= len(theirs)
	for i := 0; same && i < len(theirs); i++ {
		same = mine[i].Len() == 0 || theirs[i].Len() == 0 || mine[i].Equal(theirs[i])
	}
	return same
}

// Adopt takes over the versions of newer that k does not hold, as copies in the
// Home of k. Those who use k have them from then on; the current version stays.
// Errors: ErrForeign if newer does not continue k, secret.ErrMemory.
func (k *Keyring) Adopt(newer *Keyring) error {
	if newer == k {
		return nil
	}
	k.change.Lock()
	defer k.change.Unlock()
	if !newer.Extends(k) {
		return ErrForeign
	}
	var err error
	secret.Do(func() { err = k.adopt(newer) })
	return err
}

func (k *Keyring) adopt(newer *Keyring) error {
	newer.Hold()
	defer newer.Release()
	versions := slices.Clone(k.set.Load().versions)
	lacking := make([]secret.Bytes, newer.Newest())
	for i, v := range newer.set.Load().versions {
		if i < len(versions) && versions[i].Len() > 0 {
			continue
		}
		var err error
		if lacking[i], err = copyTo(k.home, v); err != nil {
			return err
		}
	}
	added, err := newKeySet(k.home, k.domain, lacking)
	if err != nil {
		return err
	}
	k.set.Store(k.set.Load().merged(added))
	return nil
}

// merged returns the keys of both sets; added has at least as many versions, and
// holds none that s holds.
func (s *keySet) merged(added *keySet) *keySet {
	both := func(have, more []secret.Bytes) []secret.Bytes {
		all := slices.Clone(more)
		for i, key := range have {
			if key.Len() > 0 {
				all[i] = key
			}
		}
		return all
	}
	m := &keySet{both(s.versions, added.versions), map[Purpose][]secret.Bytes{}}
	for p := range s.derived {
		m.derived[p] = both(s.derived[p], added.derived[p])
	}
	return m
}

// Settle forgets the versions that the manifest of s says are forgotten, once the
// version that it makes the current one is held: their keys are zeroed when nobody
// uses them. It reports whether there were any. A version that is still the
// current one of k stays until Advance has replaced it.
func (k *Keyring) Settle(s *manifest.Settings) (forgot bool) {
	if k.Newest() < s.DomainKeyVersion() { // or this TEE would be left without a key
		return false
	}
	k.change.Lock()
	defer k.change.Unlock()
	for _, version := range s.DomainKey.Forgotten {
		forgot = k.drop(version) || forgot
	}
	return forgot
}

// Retire drops the versions below least that are held, but for the current one,
// and reports whether there were any. They can be adopted again.
func (k *Keyring) Retire(least uint32) (dropped bool) {
	k.change.Lock()
	defer k.change.Unlock()
	for version := uint32(1); version < min(least, k.Newest()); version++ {
		dropped = k.drop(version) || dropped
	}
	return dropped
}

// Lacks reports whether a version from least on, up to the newest one, is neither
// held nor forgotten by the manifest of s.
func (k *Keyring) Lacks(least uint32, s *manifest.Settings) bool {
	for version := max(least, 1); version < k.Newest(); version++ {
		if !k.Holds(version) && !slices.Contains(s.DomainKey.Forgotten, version) {
			return true
		}
	}
	return false
}

// drop forgets a version that can be spared, and reports whether it was held. The
// caller must hold k.change.
func (k *Keyring) drop(version uint32) bool {
	if !k.Holds(version) || version == k.Current() || version >= k.Newest() {
		return false
	}
	k.forget(version)
	return true
}

// forget drops a version, not the last one. The caller must hold k.change.
func (k *Keyring) forget(version uint32) {
	have := k.set.Load()
	var gone []secret.Bytes
	without := func(keys []secret.Bytes) []secret.Bytes {
		left := slices.Clone(keys)
		gone, left[version-1] = append(gone, left[version-1]), secret.Bytes{}
		return left
	}
	left := &keySet{without(have.versions), map[Purpose][]secret.Bytes{}}
	for p, keys := range have.derived {
		left.derived[p] = without(keys)
	}
	k.set.Store(left)
	k.inUse.Lock() // whoever has got them already is done with them now
	defer k.inUse.Unlock()
	for _, key := range gone {
		key.Zero()
	}
}
