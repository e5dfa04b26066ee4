package core

import (
	"math"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	// memberVersion names a version of the key.
	memberVersion = "keyversion"

	// maxTried is how many versions of a key are tried for what does not say which
	// one it is for. Older ones must be named.
	maxTried = 8
)

func versionMember() member {
	return member{name: memberVersion, kind: kindInteger, min: 1, max: math.MaxUint32}
}

// versionActions are about the versions of a key.
func versionActions() []*action {
	keyid := keyIDMember("keyid")
	one := []member{keyid, versionMember()}
	return []*action{
		{name: "RotateKey", mutates: true, named: true, run: (*request).rotateKey, storage: "rotateKey failed", members: []member{keyid}},
		{name: "ListKeyVersions", named: true, run: (*request).listKeyVersions, members: []member{keyid}},
		{name: "DisableKeyVersion", mutates: true, named: true, run: (*request).disableKeyVersion, storage: "disableKeyVersion failed", members: one},
		{name: "ScheduleKeyVersionDeletion", mutates: true, named: true, run: (*request).scheduleKeyVersionDeletion,
			storage: "scheduleKeyVersionDeletion failed", members: append(slices.Clone(one), daysMember(), nowMember())},
		{name: "EnableKeyVersion", mutates: true, named: true, run: (*request).enableKeyVersion, storage: "enableKeyVersion failed", members: one},
	}
}

// protectingVersion is the version that new data are protected with: the one that
// the request names, or else the primary.
func (x *request) protectingVersion(k *cached[record.Key]) (uint32, error) {
	n := x.payload.integer(memberVersion)
	if n == 0 {
		return k.value.Primary, nil
	}
	v, ok := k.value.Version(uint32(n))
	switch {
	case !ok || v.State != record.Active:
		return 0, errVersion("no such version")
	case v.Number < k.value.LeastEncrypt: // check: least-encrypt
		return 0, errVersion("version below the least for encryption")
	}
	return v.Number, nil
}

// versionsFor are the versions that a request is to work with, at least one.
func (x *request) versionsFor(k *cached[record.Key], protects, one bool) ([]uint32, error) {
	if !protects {
		return x.processingVersions(k, one)
	}
	n, err := x.protectingVersion(k)
	return []uint32{n}, err
}

// processingVersions are the versions to try what is protected with: the one that
// the request names, or the primary and then, unless it shall be one, others from
// the newest to the oldest. Their records are asked for all at once.
func (x *request) processingVersions(k *cached[record.Key], one bool) ([]uint32, error) {
	named := uint32(x.payload.integer(memberVersion))
	if named == 0 && (one || len(k.value.Versions) < 2) {
		named = k.value.Primary
	}
	var numbers []uint32
	for _, v := range slices.Backward(k.value.Versions) {
		switch {
		case v.State != record.Active:
		case v.Number < k.value.LeastDecrypt: // check: least-process
		case named == 0 && v.Number != k.value.Primary && len(numbers) < maxTried, v.Number == named:
			numbers = append(numbers, v.Number)
		}
	}
	if _, ok := k.value.Version(k.value.Primary); ok && named == 0 {
		numbers = append([]uint32{k.value.Primary}, numbers...)
	}
	switch {
	case k.value.Primary == 0:
		return nil, errServer("key has no material")
	case len(numbers) == 0:
		return nil, errVersion("no such version")
	}
	ids := make([]wire.RecordID, len(numbers))
	for i, n := range numbers {
		ids[i] = wire.RecordID{Type: wire.KeyVersion, Tenant: k.id.Tenant, ID: k.id.ID, Version: n}
	}
	return numbers, x.require(ids...)
}

// rotateKey makes a new version of a key, which protects new data from now on.
// Older ones go on processing what they have protected.
func (x *request) rotateKey() (result, error) {
	k, err := x.ownKey()
	if err != nil {
		return result{}, err
	}
	next, err := x.rotated(k)
	if err != nil {
		return result{}, err
	}
	o := object{}.text("keyid", k.id.ID.String()).integer(memberVersion, int64(next.Primary))
	return result{textSuccess, o.end()}, x.writeKey(k.id, k.revision, next)
}

// rotated is a key with one version more, whose record is among the writes.
func (x *request) rotated(k *cached[record.Key]) (record.Key, error) {
	next := k.value
	switch {
	case next.Origin != record.Internal: // check: rotate-origin
		return next, errImported()
	case next.State != record.Active || x.expired(&next): // check: rotate-state
		return next, errDisabled()
	case x.core.specOff(next.Spec): // check: rotate-spec-off
		return next, errServer("key spec is switched off")
	case len(next.Versions) >= record.MaxVersions:
		return next, bad("The limit of versions is reached.", "limit of versions")
	}
	material, err := x.core.generators.material(next.Spec)
	if err != nil {
		return next, notRefusal(err, "key generation")
	}
	next.Versions = slices.Clone(next.Versions)
	number := next.Versions[len(next.Versions)-1].Number + 1
	if err := x.writeVersion(k.id.ID, &next, number, material); err != nil {
		return next, err
	}
	if next.Period != 0 {
		next.Rotate = x.millis() + int64(next.Period)*dayMillis
	}
	x.keyVersion = number
	return next, nil
}

func errImported() *refusal { return bad("The key's material is imported.", "imported material") }

func (x *request) listKeyVersions() (result, error) {
	k, err := x.ownKey()
	if err != nil {
		return result{}, err
	}
	return result{textSuccess, object{}.raw("versions", versionList(&k.value)).end()}, nil
}

// versionList is a JSON array of all versions of a key, oldest first.
func versionList(k *record.Key) []byte {
	list := []byte{'['}
	for i, v := range k.Versions {
		if i > 0 {
			list = append(list, ',')
		}
		o := object{}.integer(memberVersion, int64(v.Number)).text("state", stateName(v.State)).boolean("primary", v.Number == k.Primary).
			integer("created", v.Created).integer("deletionDate", v.Destroy)
		list = append(list, o.end()...)
	}
	return append(list, ']')
}

// stateName is the name of a key state on the wire, after SP 800-57.
func stateName(s record.State) string {
	names := map[record.State]string{
		record.PreActivation: "pre-activation", record.Active: "active", record.Suspended: "suspended",
		record.Deactivated: "deactivated", record.Compromised: "compromised", record.Destroyed: "destroyed",
	}
	return names[s]
}

// disableKeyVersion suspends an old version: nothing is processed with it.
func (x *request) disableKeyVersion() (result, error) {
	k, next, v, err := x.oldVersion()
	if err != nil {
		return result{}, err
	}
	v.State = record.Suspended
	return result{message: textSuccessful}, x.narrowing(x.writeKey(k.id, k.revision, next))
}

// enableKeyVersion ends the suspension of a version, and takes the date of its
// destruction back.
func (x *request) enableKeyVersion() (result, error) {
	k, next, v, err := x.oldVersion()
	if err != nil {
		return result{}, err
	}
	v.State, v.Destroy = record.Active, 0
	return result{message: textSuccessful}, x.writeKey(k.id, k.revision, next)
}

// scheduleKeyVersionDeletion suspends an old version until its material is
// destroyed.
func (x *request) scheduleKeyVersionDeletion() (result, error) {
	k, next, v, err := x.oldVersion()
	if err != nil {
		return result{}, err
	}
	v.State, v.Destroy = record.Suspended, x.windowEnd()
	o := object{}.text("keyid", k.id.ID.String()).integer(memberVersion, int64(v.Number)).integer("deletionDate", v.Destroy)
	return result{textSuccess, o.end()}, x.narrowing(x.writeKey(k.id, k.revision, next))
}

// oldVersion returns the key to change and a copy of it, with the version that the
// request names. The primary is none: no new data would be protected.
func (x *request) oldVersion() (k *cached[record.Key], next record.Key, v *record.Version, err error) {
	if k, err = x.ownKey(); err != nil {
		return nil, next, nil, err
	}
	number := uint32(x.payload.integer(memberVersion))
	next = k.value
	next.Versions = slices.Clone(next.Versions)
	i := slices.IndexFunc(next.Versions, func(v record.Version) bool { return v.Number == number })
	switch {
	case i < 0:
		return nil, next, nil, errVersion("no such version")
	case number == next.Primary: // check: primary-stays
		return nil, next, nil, bad("The primary version cannot be changed.", "primary version")
	case next.Versions[i].State != record.Active && next.Versions[i].State != record.Suspended: // check: version-no-way-back
		return nil, next, nil, errVersion("version has no way back")
	}
	x.keyVersion = number
	return k, next, &next.Versions[i], nil
}
