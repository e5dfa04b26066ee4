package manifest

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestLimitsOfModes(t *testing.T) {
	if got := Defaults(Development).Limits; got != (Limits{}) {
		t.Errorf("development: got %+v, want none", got)
	}
	if got, want := Defaults(Production).Limits, (Limits{2000, 4000, 10000, 4000}); got != want {
		t.Errorf("production: got %+v, want %+v", got, want)
	}
}

// Manifests without limits are encoded as before there were any.
func TestLimitsEncoding(t *testing.T) {
	for _, row := range []struct {
		limits Limits
		want   string
	}{
		{Limits{}, ``},
		{Limits{RequestsPerSecond: 10, Burst: 20}, `"limits":{"requestsPerSecond":10,"burst":20}`},
		{Limits{Keys: 3}, `"limits":{"keys":3}`},
		{Limits{Secrets: 4}, `"limits":{"secrets":4}`},
	} {
		b, err := json.Marshal(Settings{Limits: row.limits})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, []byte(row.want)) || row.want == "" && bytes.Contains(b, []byte("limits")) {
			t.Errorf("%+v: got %s, want %s", row.limits, b, row.want)
		}
	}
}
