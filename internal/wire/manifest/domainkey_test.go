package manifest

import (
	"encoding/json"
	"errors"
	"testing"
)

func TestDomainKeyEncoding(t *testing.T) {
	for _, row := range []struct {
		d    DomainKey
		want string
	}{
		{DomainKey{Version: 2}, `{"version":2}`},
		{DomainKey{Version: 3, Compromised: []uint32{1, 2}, Forgotten: []uint32{1}}, `{"version":3,"compromised":[1,2],"forgotten":[1]}`},
	} {
		if got, err := json.Marshal(row.d); err != nil || string(got) != row.want {
			t.Errorf("got %s, %v, want %s", got, err, row.want)
		}
	}
	if got := (&Settings{}).DomainKeyVersion(); got != 1 {
		t.Errorf("a domain without the member has version %d, want 1", got)
	}
}

func TestDomainKeyValidate(t *testing.T) {
	list := func(v ...uint32) []uint32 { return v }
	for _, row := range []struct {
		name string
		d    DomainKey
		ok   bool
	}{
		{"nothing", DomainKey{}, true},
		{"the second", DomainKey{Version: 2}, true},
		{"with both lists", DomainKey{4, list(1, 3), list(1, 2)}, true},
		{"the highest", DomainKey{Version: maxKeyVersion}, true},
		{"the first, which goes without saying", DomainKey{Version: 1}, false},
		{"lists alone", DomainKey{Compromised: list(1)}, false},
		{"too many", DomainKey{Version: maxKeyVersion + 1}, false},
		{"the current one compromised", DomainKey{Version: 2, Compromised: list(2)}, false},
		{"the current one forgotten", DomainKey{Version: 2, Forgotten: list(1, 2)}, false},
		{"one to come forgotten", DomainKey{Version: 2, Forgotten: list(3)}, false},
		{"version 0", DomainKey{Version: 2, Forgotten: list(0)}, false},
		{"twice", DomainKey{Version: 3, Compromised: list(1, 1)}, false},
		{"descending", DomainKey{Version: 3, Forgotten: list(2, 1)}, false},
		{"a list that is empty", DomainKey{Version: 3, Forgotten: list()}, true}, // re-encoding refuses it
	} {
		if err := row.d.validate(); (err == nil) != row.ok {
			t.Errorf("%s: got %v", row.name, err)
		}
	}
}

func TestRotates(t *testing.T) {
	list := func(v ...uint32) []uint32 { return v }
	for _, row := range []struct {
		name    string
		old, is DomainKey
		ok      bool
	}{
		{"as it was", DomainKey{2, list(1), nil}, DomainKey{2, list(1), nil}, true},
		{"the second", DomainKey{}, DomainKey{Version: 2}, true},
		{"the second, as the first is compromised", DomainKey{}, DomainKey{2, list(1), nil}, true},
		{"the third", DomainKey{Version: 2}, DomainKey{Version: 3}, true},
		{"compromised later", DomainKey{Version: 3}, DomainKey{3, list(1), nil}, true},
		{"forgotten", DomainKey{2, list(1), nil}, DomainKey{2, list(1), list(1)}, true},
		{"two at once", DomainKey{}, DomainKey{Version: 3}, false},
		{"back", DomainKey{Version: 3}, DomainKey{Version: 2}, false},
		{"back to none", DomainKey{Version: 2}, DomainKey{}, false},
		{"not compromised after all", DomainKey{2, list(1), nil}, DomainKey{Version: 2}, false},
		{"remembered", DomainKey{2, nil, list(1)}, DomainKey{Version: 2}, false},
	} {
		err := (&Settings{DomainKey: row.is}).rotates(&Settings{DomainKey: row.old})
		if (err == nil) != row.ok || err != nil && !errors.Is(err, ErrRotation) {
			t.Errorf("%s: got %v", row.name, err)
		}
	}
}
