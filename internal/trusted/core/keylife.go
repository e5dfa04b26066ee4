package core

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
)

const (
	dayMillis   = 24 * 3600 * 1000
	maxDeletion = 30 // days until a deleted key is destroyed
)

// lifeActions are about a key as a whole: what it is called, how it lives, and how
// it ends.
func lifeActions() []*action {
	keyid := keyIDMember("keyid")
	version := member{kind: kindInteger, min: 1, max: math.MaxUint32, optional: true}
	least := func(name string) member { version.name = name; return version }
	return []*action{
		{name: "DescribeKey", named: true, run: (*request).describeKey, members: []member{keyid}},
		{name: "UpdateKey", mutates: true, named: true, run: (*request).updateKey, storage: "updateKey failed", members: []member{
			keyid, {name: "description", kind: kindAny, optional: true}, {name: "tags", kind: kindAny, optional: true},
			{name: "deletionProtection", kind: kindText, min: 2, max: 3, optional: true},
			least("leastEncrypt"), least("leastDecrypt"),
			{name: "rotationDays", kind: kindInteger, min: 1, max: record.MaxPeriod, optional: true},
			{name: "clear", kind: kindNames, optional: true, names: []string{
				clearDescription, clearTags, clearRotation, clearLeastEncrypt, clearLeastDecrypt}}}},
		{name: "ScheduleKeyDeletion", mutates: true, named: true, run: (*request).scheduleKeyDeletion, storage: "scheduleKeyDeletion failed",
			members: []member{keyid, daysMember(), nowMember()}},
		{name: "CancelKeyDeletion", mutates: true, named: true, run: (*request).cancelKeyDeletion, storage: "cancelKeyDeletion failed", members: []member{keyid}},
	}
}

// daysMember is for how many days something can be had back, if not for as long as
// the domain has it. No canonical form shows a 0, so there is nowMember.
func daysMember() member {
	return member{name: "days", kind: kindInteger, min: 1, max: maxDeletion, optional: true}
}

func nowMember() member { return member{name: "immediately", kind: kindBool, optional: true} }

// What UpdateKey can take away. No canonical form shows what is empty, so it has to
// be said.
const (
	clearDescription  = "description"
	clearTags         = "tags"
	clearRotation     = "rotation"
	clearLeastEncrypt = "leastEncrypt"
	clearLeastDecrypt = "leastDecrypt"
)

// describeKey tells all there is to know of a key, also of one that is deleted and
// can still be had back.
func (x *request) describeKey() (result, error) {
	k, err := x.anyKey()
	if err != nil {
		return result{}, err
	}
	v := &k.value
	state := stateName(v.State)
	if x.gone(v) {
		state = "pending-deletion"
	}
	o := object{}.text("keyid", k.id.ID.String()).text("description", v.Description).raw("tags", tagObject(v.Tags)).
		text("keyspec", v.Spec.String()).text("keyusage", usageName(v.Usage)).text("origin", originName(v.Origin)).
		raw("paddingModes", paddingList(v.Paddings)).text("state", state).
		integer("created", v.Created).integer("modified", v.Modified).integer("expires", v.Expires).
		boolean("deletionProtection", v.Protected).integer("deletionDate", x.destruction(v)).
		integer("primary", int64(v.Primary)).integer("leastEncrypt", int64(v.LeastEncrypt)).integer("leastDecrypt", int64(v.LeastDecrypt)).
		integer("rotationDays", int64(v.Period)).integer("nextRotation", v.Rotate).
		raw("versions", versionList(v))
	return result{textSuccess, o.end()}, nil
}

func usageName(u record.Usage) string {
	if u == record.SignVerify {
		return usageSign
	}
	return usageEncrypt
}

func originName(o record.Origin) string {
	if o == record.External {
		return originExternal
	}
	return originInternal
}

func paddingList(set primitive.PaddingSet) []byte {
	list := []byte{'['}
	for _, name := range paddingNames()[1:4] {
		if p, _ := primitive.ParsePadding(name); set.Has(p) {
			if len(list) > 1 {
				list = append(list, ',')
			}
			list = appendJSON(list, name)
		}
	}
	return append(list, ']')
}

func tagObject(tags []record.Tag) []byte {
	b := []byte{'{'}
	for i, t := range tags {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSON(b, t.Name), ':')
		b = appendJSON(b, t.Value)
	}
	return append(b, '}')
}

// anyKey returns a key of the tenant that has not been destroyed, deleted or not.
func (x *request) anyKey() (*cached[record.Key], error) {
	id, ok := x.keyRecord(x.payload.text("keyid"))
	if !ok {
		return nil, errNoKey()
	}
	x.key = id.ID
	k, err := load(x, x.core.cmks, id, x.core.openKey)
	switch {
	case err != nil:
		return nil, err
	case k == nil || k.value.Default || k.value.State == record.Destroyed: // check: any-key
		return nil, errNoKey()
	case x.gone(&k.value) && x.millis() >= x.destruction(&k.value): // check: window-over
		return nil, errNoKey()
	}
	return k, nil
}

func errNoKey() *refusal { return bad("not find this keyid", "no such key") }

// destruction is when the material of a deleted key is to be destroyed, in Unix
// milliseconds; 0: the key is not deleted.
func (x *request) destruction(k *record.Key) int64 {
	switch {
	case k.Destroy != 0:
		return k.Destroy
	case k.Deleted != 0:
		return k.Deleted + x.deletionWindow()
	case x.gone(k):
		return x.app.value.GenerationAt + x.deletionWindow()
	}
	return 0
}

// deletionWindow is how long a deleted key can be had back, in milliseconds.
func (x *request) deletionWindow() int64 {
	return int64(x.core.terms.Load().settings.DeletionWindow) * dayMillis
}

// windowEnd is when what is deleted now is to be destroyed.
func (x *request) windowEnd() int64 {
	if x.payload.get("immediately").Bool() {
		return x.millis()
	}
	if v := x.payload.get("days"); v.Kind() == canon.Number {
		return x.millis() + int64(v.Number())*dayMillis
	}
	return x.millis() + x.deletionWindow()
}

// updateKey changes what the payload has, and leaves the rest.
func (x *request) updateKey() (result, error) {
	k, err := x.ownKey()
	if err != nil {
		return result{}, err
	}
	next := k.value
	x.clearParts(&next)
	if err := x.updateTexts(&next); err != nil {
		return result{}, err
	}
	switch x.payload.text("deletionProtection") {
	case "":
	case "on":
		next.Protected = true
	case "off":
		next.Protected = false
	default:
		return result{}, bad("Parameter invalid, The deletionProtection must be on or off.", "invalid member")
	}
	if err := cmp.Or(x.updateLeast(&next), x.updatePeriod(&next)); err != nil {
		return result{}, err
	}
	next.Generation = x.app.value.Generation // it may have survived the deletion of all others
	err = x.writeKey(k.id, k.revision, next)
	if k.value.Protected && !next.Protected || next.LeastDecrypt > k.value.LeastDecrypt || next.LeastEncrypt > k.value.LeastEncrypt { // check: update-narrows
		err = x.narrowing(err)
	}
	return result{message: textSuccessful}, err
}

// clearParts takes away what the request says. Other members of it come after that.
func (x *request) clearParts(k *record.Key) {
	for _, name := range x.payload.names("clear") {
		switch name {
		case clearDescription:
			k.Description = ""
		case clearTags:
			k.Tags = nil
		case clearRotation:
			k.Period, k.Rotate = 0, 0
		case clearLeastEncrypt:
			k.LeastEncrypt = 0
		case clearLeastDecrypt:
			k.LeastDecrypt = 0
		}
	}
}

func (x *request) updateTexts(k *record.Key) error {
	switch v := x.payload.get("description"); {
	case v.Kind() == canon.Absent || v.Kind() == canon.Null:
	case v.Kind() != canon.String:
		return bad("Parameter invalid, The description must be of string type.", "invalid member")
	case len(v.Text()) > record.MaxDescription || !utf8.ValidString(v.Text()):
		return bad("Parameter invalid, The description length error.", "invalid member")
	default:
		k.Description = v.Text()
	}
	v := x.payload.get("tags")
	if v.Kind() == canon.Absent || v.Kind() == canon.Null {
		return nil
	}
	if v.Len() == 0 {
		return errEmpty("tags")
	}
	tags, err := readTags(v)
	k.Tags = tags
	return err
}

// readTags reads an object of names and values.
func readTags(v canon.Value) ([]record.Tag, error) {
	if v.Kind() != canon.Object {
		return nil, bad("Parameter invalid, The tags type is incorrect.", "invalid member")
	}
	var tags []record.Tag
	for name, value := range v.Members() {
		switch {
		case value.Kind() != canon.String:
			return nil, bad("Parameter invalid, The tags type is incorrect.", "invalid member")
		case len(name) < 1 || len(name) > record.MaxTagName || len(value.Text()) > record.MaxTagValue || len(tags) == record.MaxTags:
			return nil, bad("Parameter invalid, The tags length error.", "invalid member")
		}
		tags = append(tags, record.Tag{Name: strings.Clone(name), Value: strings.Clone(value.Text())})
	}
	slices.SortFunc(tags, func(a, b record.Tag) int { return cmp.Compare(a.Name, b.Name) })
	return tags, nil
}

// updateLeast raises or lowers which versions are in use. The primary always is.
func (x *request) updateLeast(k *record.Key) error {
	for _, m := range []struct {
		name string
		at   *uint32
	}{{"leastEncrypt", &k.LeastEncrypt}, {"leastDecrypt", &k.LeastDecrypt}} {
		v := x.payload.get(m.name)
		if v.Kind() != canon.Number {
			continue
		}
		if n := uint32(v.Number()); n <= k.Primary { // check: least-primary
			*m.at = n
			continue
		}
		return bad("The primary version is the highest that can be the least.", "least version above the primary")
	}
	return nil
}

// updatePeriod changes after how many days the key rotates by itself.
func (x *request) updatePeriod(k *record.Key) error {
	v := x.payload.get("rotationDays")
	if v.Kind() != canon.Number {
		return nil
	}
	if k.Origin != record.Internal { // check: period-origin
		return errImported()
	}
	k.Period = uint16(v.Number())
	k.Rotate = x.millis() + int64(k.Period)*dayMillis
	return nil
}

// scheduleKeyDeletion deletes a key as DeleteKey does, with a window of its own.
func (x *request) scheduleKeyDeletion() (result, error) {
	k, err := x.ownKey()
	if err != nil {
		return result{}, err
	}
	if k.value.Protected { // check: protected-schedule
		return result{}, errProtected()
	}
	next := k.value
	next.Deleted, next.Destroy = x.millis(), x.windowEnd()
	o := object{}.text("keyid", k.id.ID.String()).integer("deletionDate", next.Destroy)
	return result{textSuccess, o.end()}, x.narrowing(x.writeKey(k.id, k.revision, next))
}

func errProtected() *refusal {
	return bad("The key is protected from deletion.", "protected from deletion")
}

// cancelKeyDeletion gives a deleted key back while its window lasts. One that is
// not deleted gets a new revision too, which supersedes what the host may hold of
// a deletion that was never confirmed.
func (x *request) cancelKeyDeletion() (result, error) {
	k, err := x.anyKey()
	if err != nil {
		return result{}, err
	}
	next := k.value
	next.Deleted, next.Destroy, next.Generation = 0, 0, x.app.value.Generation
	return result{message: textSuccessful}, x.writeKey(k.id, k.revision, next)
}
