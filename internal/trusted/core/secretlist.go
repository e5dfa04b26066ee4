package core

import (
	"cmp"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	// maxListReply is where a listing of secrets ends, in bytes: descriptions of
	// 4000 secrets may take 100 MB when they are escaped.
	maxListReply = 16 << 20
	// overtaking is how many new versions may come between the query for a
	// secret's versions and its answer.
	overtaking = 16
)

// listSecretVersionIDs lists the newest versions of a secret, in their order.
// The secret's record says how many there are, so the host cannot leave any out.
func (x *request) listSecretVersionIDs() (result, error) {
	s, err := x.loadSecret()
	if err != nil {
		return result{}, err
	}
	name := x.payload.text("secretName")
	var created []int64 // of the versions above first
	first := uint32(0)
	if s != nil && s.value.Planned == 0 { // check: secret-deleted-versions
		first = s.value.Current - min(s.value.Current, wire.MaxSecrets)
		if created, err = x.versionDates(s, first); err != nil {
			return result{}, err
		}
	}
	o := object{}.text("secretName", name).integer("totalCount", int64(len(created))).key("versionIds")
	o = append(o, '[')
	for i, at := range created {
		if i > 0 {
			o = append(o, ',')
		}
		o = append(o, object{}.integer("versionId", int64(first)+int64(i)+1).integer("createTime", at).end()...)
	}
	return result{"List secret versionIds success.", append(o, ']').end()}, nil
}

// versionDates returns when the versions of a secret above a number were made.
func (x *request) versionDates(s *cached[record.Secret], first uint32) ([]int64, error) {
	if !x.call.Listed {
		return nil, &needError{list: &wire.Query{
			Type: wire.SecretVersion, Tenant: x.tenant, ID: s.value.Incarnation, After: first, Limit: wire.MaxSecrets + overtaking,
		}}
	}
	created, found := make([]int64, s.value.Current-first), 0
	err := eachListed(x, x.core.values, x.core.openValue, func(v *cached[sealedValue]) error {
		if v.id.ID != s.value.Incarnation { // check: versions-secret
			return errInternal("version of another secret in a listing")
		}
		if n := v.id.Version; n > first && n <= s.value.Current {
			created[n-first-1] = v.value.Created
			found++
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if found != len(created) { // check: versions-complete
		return nil, errInternal("versions are missing in a listing")
	}
	return created, nil
}

// listSecrets lists the tenant's secrets or the one of a name, oldest first.
// Those to be deleted are among them. The host answers the query and can leave
// secrets out; it cannot add or alter any.
func (x *request) listSecrets() (result, error) {
	secrets, err := x.secretsToList()
	if err != nil {
		return result{}, err
	}
	slices.SortFunc(secrets, func(a, b *cached[record.Secret]) int {
		return cmp.Or(cmp.Compare(a.value.Created, b.value.Created), cmp.Compare(a.value.Name, b.value.Name))
	})
	var list []byte
	count := 0
	for _, s := range secrets[:min(len(secrets), wire.MaxSecrets)] {
		item := listed(&s.value)
		if len(list)+len(item) > maxListReply {
			break
		}
		if count++; count > 1 {
			list = append(list, ',')
		}
		list = append(list, item...)
	}
	o := object{}.integer("totalCount", int64(count)).key("secretList")
	o = append(append(append(o, '['), list...), ']')
	return result{"List secrets success.", o.end()}, nil
}

// secretsToList returns the secrets that are there.
func (x *request) secretsToList() ([]*cached[record.Secret], error) {
	if x.payload.text("secretName") != "" {
		s, err := x.loadSecret()
		if err != nil || s == nil {
			return nil, err
		}
		return []*cached[record.Secret]{s}, nil
	}
	x.query = &wire.Query{Type: wire.Secret, Tenant: x.tenant, Limit: wire.MaxSecrets}
	if !x.call.Listed {
		return nil, &needError{list: x.query}
	}
	var secrets []*cached[record.Secret]
	err := eachListed(x, x.core.secrets, x.core.openSecret, func(s *cached[record.Secret]) error {
		if !x.secretGone(&s.value) {
			secrets = append(secrets, s)
		}
		return nil
	})
	return secrets, err
}

func listed(s *record.Secret) []byte {
	o := object{}.text("secretName", s.Name)
	if s.Description != "" {
		o = o.text("description", s.Description)
	}
	o = o.integer("createTime", s.Created)
	if s.Planned != 0 {
		o = o.integer("plannedDeleteTime", s.Planned)
	}
	return o.end()
}

// describeSecret shows a secret without its value. All members are there, those
// without a value as "" or 0; rationalInterval is an old client's spelling.
func (x *request) describeSecret() (result, error) {
	res := result{message: "Describe secrets success."}
	s, err := x.loadSecret()
	if err != nil || s == nil {
		return res, err
	}
	next := int64(0)
	if n := interval(s.value.Interval); n != 0 {
		next = max(s.value.Created, s.value.Rotated) + n.Milliseconds()
	}
	res.body = object{}.text("secretName", s.value.Name).text("description", s.value.Description).
		integer("createTime", s.value.Created).integer("plannedDeleteTime", s.value.Planned).
		text("rotationInterval", s.value.Interval).text("rationalInterval", s.value.Interval).
		integer("lastRotationDate", s.value.Rotated).integer("nextRotationDate", next).end()
	return res, nil
}
