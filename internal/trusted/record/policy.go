package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Limits of a policy.
const (
	MaxPolicyActions = 64
	MaxPolicyKeys    = 256
)

// Policy says what requests of the credentials that name it may do: nothing but
// these actions. It has no material.
type Policy struct {
	Created  int64 // Unix milliseconds
	Modified int64 // Unix milliseconds
	// Deleted is when its owner deleted it, in Unix milliseconds; 0: he did not. A
	// deleted policy allows nothing, and has no actions or keys.
	Deleted int64
	// Actions are names of actions in ascending order, each once, 1 to
	// MaxPolicyActions of 1 to MaxText bytes of printable ASCII.
	Actions []string
	// AllKeys says that the actions may be about all keys of the app. Keys is empty then.
	AllKeys bool
	// Keys are the only keys that the actions may be about, 1 to MaxPolicyKeys in
	// ascending order, each once.
	Keys        []wire.UUID
	Description string // up to MaxText bytes of printable ASCII
}

const policyV1 = 1

// What a policy names keys by. Layout 1 knows one way; a core that meets another
// one opens no such policy, and so allows nothing.
const selectKeyID = 1

// Allows reports whether the policy lets a request with an action be about keys, and
// why. What it does not list it denies. The reason is a constant.
func (p *Policy) Allows(action string, keys []wire.UUID) (allowed bool, reason string) {
	if p.Deleted != 0 { // check+: policy-deleted: a deleted policy lists no actions
		return false, "policy is deleted"
	}
	if _, listed := slices.BinarySearch(p.Actions, action); !listed { // check: policy-action
		return false, "action is not in the policy"
	}
	if p.AllKeys {
		return true, "action is in the policy"
	}
	if len(keys) == 0 { // check: policy-no-key
		return false, "policy is about keys and the request names none"
	}
	for _, k := range keys {
		if _, listed := slices.BinarySearchFunc(p.Keys, k, compareUUIDs); !listed { // check: policy-key
			return false, "key is not in the policy"
		}
	}
	return true, "action and key are in the policy"
}

func compareUUIDs(a, b wire.UUID) int { return bytes.Compare(a[:], b[:]) }

// SortKeys brings keys into the order that a policy has them in, each once. It
// changes keys.
func SortKeys(keys []wire.UUID) []wire.UUID {
	slices.SortFunc(keys, compareUUIDs)
	return slices.Compact(keys)
}

func (p *Policy) validate() error {
	live := p.Deleted == 0
	switch {
	case !live && (len(p.Actions)+len(p.Keys) > 0 || p.AllKeys):
		return errors.New("deleted policy with actions or keys")
	case live && len(p.Actions) == 0:
		return errors.New("policy without actions")
	case len(p.Actions) > MaxPolicyActions:
		return fmt.Errorf("policy with %d actions, limit %d", len(p.Actions), MaxPolicyActions)
	case p.AllKeys && len(p.Keys) > 0:
		return errors.New("policy about all keys with keys")
	case live && !p.AllKeys && len(p.Keys) == 0:
		return errors.New("policy about no key")
	case len(p.Keys) > MaxPolicyKeys:
		return fmt.Errorf("policy with %d keys, limit %d", len(p.Keys), MaxPolicyKeys)
	case !printable(p.Description):
		return fmt.Errorf("description is not of up to %d bytes of printable ASCII", MaxText)
	}
	return p.validateLists()
}

func (p *Policy) validateLists() error {
	for i, name := range p.Actions {
		switch {
		case name == "" || !printable(name):
			return fmt.Errorf("action %q is not of 1 to %d bytes of printable ASCII", name, MaxText)
		case i > 0 && name <= p.Actions[i-1]:
			return fmt.Errorf("action %s follows action %s", name, p.Actions[i-1])
		}
	}
	for i := 1; i < len(p.Keys); i++ {
		if compareUUIDs(p.Keys[i-1], p.Keys[i]) >= 0 {
			return fmt.Errorf("key %s follows key %s", p.Keys[i], p.Keys[i-1])
		}
	}
	return nil
}

// SealPolicy seals a policy. It refuses what OpenPolicy would refuse.
func SealPolicy(keys *domainkey.Keyring, h Header, p Policy) ([]byte, error) {
	if err := sealable(h, wire.Policy, p.validate()); err != nil {
		return nil, err
	}
	b := appendInt64s([]byte{policyV1}, p.Created, p.Modified, p.Deleted)
	b = pack.AppendString(b, p.Description)
	b = binary.BigEndian.AppendUint32(b, uint32(len(p.Actions)))
	for _, name := range p.Actions {
		b = pack.AppendString(b, name)
	}
	b = pack.AppendBool(b, p.AllKeys)
	b = binary.BigEndian.AppendUint32(b, uint32(len(p.Keys)))
	for _, k := range p.Keys {
		b = append(append(b, selectKeyID), k[:]...)
	}
	return seal(keys, h, b, secret.Bytes{})
}

// OpenPolicy opens a policy. Errors: ErrOpen.
func OpenPolicy(keys *domainkey.Keyring, h Header, sealed []byte) (Policy, error) {
	var p Policy
	if h.ID.Type != wire.Policy { // check+: access-policy-type: the core asks for policies by their type
		return p, fmt.Errorf("%w: %s is no policy", ErrOpen, h.ID)
	}
	attributes, none, err := open(keys, h, sealed)
	if err != nil {
		return p, err
	}
	r := version(attributes, policyV1)
	p.read(r)
	if none.Len() != 0 {
		r.Fail("policy has material")
	}
	if err := finish(r, p.validate()); err != nil {
		return Policy{}, err
	}
	return p, nil
}

func (p *Policy) read(r *pack.Reader) {
	p.Created, p.Modified, p.Deleted = r.Int64(), r.Int64(), r.Int64()
	p.Description = r.String(MaxText)
	const leastName, keySize = 3, 17 // bytes
	if n := r.Count(MaxPolicyActions, leastName); n > 0 {
		p.Actions = make([]string, n)
	}
	for i := range p.Actions {
		p.Actions[i] = r.String(MaxText)
	}
	p.AllKeys = r.Bool()
	if n := r.Count(MaxPolicyKeys, keySize); n > 0 {
		p.Keys = make([]wire.UUID, n)
	}
	for i := range p.Keys {
		if by := r.Uint8(); r.Err() == nil && by != selectKeyID {
			r.Fail("keys are named in way %d, which is unknown", by)
		}
		r.Array(p.Keys[i][:])
	}
}
