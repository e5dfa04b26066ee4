package ehsm

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestAPIKeyDoesNotPrint(t *testing.T) {
	key := NewAPIKey(testAPIKey)
	type nested struct {
		k   APIKey
		Any any
	}
	reply := key.get().reply
	values := map[string]any{
		"key": key, "pointer": &key, "credentials": Credentials{"a", key}, "slice": []APIKey{key},
		"map": map[string]APIKey{"k": key}, "nested": nested{key, key}, "nested pointer": &nested{key, &key},
		"config": Config{APIKey: key}, "client": testClient(t), "client value": *testClient(t),
	}
	for name, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T"} {
			out := fmt.Sprintf(verb, v)
			for _, secret := range []string{testAPIKey, fmt.Sprintf("%x", testAPIKey), fmt.Sprintf("%X", testAPIKey), fmt.Sprint([]byte(testAPIKey)), fmt.Sprint(reply), fmt.Sprintf("%x", reply)} {
				if strings.Contains(out, strings.Trim(secret, "[]")) {
					t.Errorf("%s with %s shows the key", name, verb)
				}
			}
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		if strings.Contains(log.String(), testAPIKey) {
			t.Errorf("%s in a log shows the key", name)
		}
	}
}

func TestAPIKeyDoesNotMarshal(t *testing.T) {
	key := NewAPIKey(testAPIKey)
	if b, err := json.Marshal(Credentials{"a", key}); err == nil {
		t.Errorf("json: got %s", b)
	}
	if err := gob.NewEncoder(&bytes.Buffer{}).Encode(Credentials{"a", key}); err == nil {
		t.Error("gob: got no error")
	}
}

func TestZeroAPIKey(t *testing.T) {
	for name, key := range map[string]APIKey{"zero": {}, "empty": NewAPIKey("")} {
		if !key.IsZero() || key.Expose() != "" || fmt.Sprint(key) != "apikey" {
			t.Errorf("%s: got %q", name, key.Expose())
		}
	}
	if key := NewAPIKey("k"); key.IsZero() || key.Expose() != "k" {
		t.Errorf("NewAPIKey: got %q", key.Expose())
	}
}
