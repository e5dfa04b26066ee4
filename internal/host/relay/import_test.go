package relay

import (
	"context"
	"fmt"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

var sessionRecord = wire.RecordID{Type: wire.ImportSession, Tenant: tenant, ID: keyID}

// TestPeekSession has the actions that need the import session of their key.
func TestPeekSession(t *testing.T) {
	named := fmt.Sprintf(`{"keyid":"%s"}`, keyID)
	for name, row := range map[string]struct {
		action, payload string
		want            wire.UUID
	}{
		"parameters":              {"GetParametersForImport", named, keyID},
		"import":                  {"ImportKeyMaterial", named, keyID},
		"import in lower case":    {"importkeymaterial", named, wire.UUID{}},
		"another action":          {"GetPublicKey", named, wire.UUID{}},
		"import without a key":    {"ImportKeyMaterial", `{}`, wire.UUID{}},
		"import of no id":         {"ImportKeyMaterial", `{"keyid":"x"}`, wire.UUID{}},
		"import names ukeyid":     {"ImportKeyMaterial", fmt.Sprintf(`{"ukeyid":"%s"}`, keyID), wire.UUID{}},
		"parameters without more": {"GetParametersForImport", `null`, wire.UUID{}},
	} {
		n, ok := peek(row.action, fmt.Appendf(nil, `{"appid":"%s","payload":%s}`, tenant, row.payload))
		if !ok || n.session != row.want {
			t.Errorf("%s: got %v, %v, want %v", name, n.session, ok, row.want)
		}
	}
}

// TestImportSessionInOneCall has the session travel with the key, also where
// there is none yet.
func TestImportSessionInOneCall(t *testing.T) {
	for name, row := range map[string]struct {
		action string
		stored bool
	}{
		"first session": {"GetParametersForImport", false}, "next session": {"GetParametersForImport", true},
		"import": {"ImportKeyMaterial", true}, "import without a session": {"ImportKeyMaterial", false},
	} {
		g := newRig(t, Options{})
		if row.stored {
			g.store.put(sessionRecord, 0, 0)
		}
		g.core.calls = nil
		if _, err := g.Do(context.Background(), Request{ID: "r", Action: row.action, Body: body(1)}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(g.core.calls) == 0 {
			t.Fatalf("%s: the core was not called", name)
		}
		found := false
		for _, f := range g.core.calls[0].Records {
			if f.ID == sessionRecord {
				found = true
				if (f.Revision != 0) != row.stored || (f.Sealed != nil) != row.stored {
					t.Errorf("%s: got revision %d and %d bytes", name, f.Revision, len(f.Sealed))
				}
			}
		}
		if !found {
			t.Errorf("%s: the session is not in the first call: %v", name, g.core.calls[0].Records)
		}
	}
}
