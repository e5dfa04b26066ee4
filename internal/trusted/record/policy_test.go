package record

import (
	"slices"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

func TestPolicyAllows(t *testing.T) {
	one, two, three := wire.UUID{1}, wire.UUID{2}, wire.UUID{3}
	all := Policy{Actions: []string{"Decrypt", "Encrypt"}, AllKeys: true}
	some := Policy{Actions: all.Actions, Keys: []wire.UUID{one, two}}
	for _, row := range []struct {
		name   string
		policy Policy
		action string
		keys   []wire.UUID
		want   bool
	}{
		{"listed", all, "Encrypt", []wire.UUID{one}, true},
		{"listed, without a key", all, "Encrypt", nil, true},
		{"not listed", all, "Sign", []wire.UUID{one}, false},
		{"no action", all, "", nil, false},
		{"another case", all, "encrypt", []wire.UUID{one}, false},
		{"the beginning of one", all, "Encryp", nil, false},
		{"one key", some, "Decrypt", []wire.UUID{one}, true},
		{"both keys", some, "Decrypt", []wire.UUID{two, one}, true},
		{"another key", some, "Decrypt", []wire.UUID{three}, false},
		{"another key too", some, "Decrypt", []wire.UUID{one, three}, false},
		{"no key", some, "Decrypt", nil, false},
		{"the zero key", some, "Decrypt", []wire.UUID{{}}, false},
		{"key without action", some, "Sign", []wire.UUID{one}, false},
		{"zero policy", Policy{}, "Encrypt", nil, false},
		{"about no key", Policy{Actions: all.Actions}, "Encrypt", []wire.UUID{one}, false},
		{"about no key, and without one", Policy{Actions: all.Actions}, "Encrypt", nil, false},
		{"deleted", Policy{Deleted: 1, Actions: all.Actions, AllKeys: true}, "Encrypt", nil, false},
	} {
		if got, reason := row.policy.Allows(row.action, row.keys); got != row.want || reason == "" {
			t.Errorf("%s: got %v, %q, want %v", row.name, got, reason, row.want)
		}
	}
}

func TestSortKeys(t *testing.T) {
	got := SortKeys([]wire.UUID{{2}, {1, 5}, {2}, {1}, {15: 1}})
	if want := []wire.UUID{{15: 1}, {1}, {1, 5}, {2}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
