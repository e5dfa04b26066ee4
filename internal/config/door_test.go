package config

import (
	"errors"
	"strings"
	"testing"
)

// TestDoor has where a dkeyserver listens for operators.
func TestDoor(t *testing.T) {
	long := "/" + strings.Repeat("d", 100)
	for _, row := range []struct {
		name, platform, domain, door, want string
		refused                            bool
	}{
		{name: "beside the manifests", platform: "sim", domain: "/d", want: "/d/door.sock"},
		{name: "default directory", platform: "sim", want: "/var/lib/ehsm/domain/door.sock"},
		{name: "elsewhere", platform: "sim", domain: long, door: "/run/door", want: "/run/door"},
		{name: "nowhere", platform: "sim", door: "none"},
		{name: "path too long", platform: "sim", domain: long, refused: true},
		{name: "named path too long", platform: "sim", door: long + "/door.sock", refused: true},
		{name: "a guest", platform: "tsm", domain: "/d", want: "/d/door.sock"},
		{name: "an enclave", platform: "gramine", domain: "/d"},
		{name: "an enclave of EGo", platform: "ego", domain: "/d"},
		{name: "an enclave that is told", platform: "gramine", door: "/run/door", want: "/run/door"},
	} {
		env := map[string]string{
			"EHSM_DKEYSERVER_PLATFORM": row.platform, "EHSM_DKEYSERVER_SIM": "/s", "EHSM_DKEYSERVER_COLLATERAL": "/c",
			"EHSM_DKEYSERVER_DOMAIN": row.domain, "EHSM_DKEYSERVER_DOOR": row.door,
		}
		c, err := LoadDKeyServer(func(name string) string { return env[name] })
		switch {
		case row.refused:
			if !errors.Is(err, ErrSetting) || !strings.Contains(err.Error(), "EHSM_DKEYSERVER_DOOR: the path") {
				t.Errorf("%s: got %v", row.name, err)
			}
		case err != nil || c.Door != row.want:
			t.Errorf("%s: got %q, %v, want %q", row.name, c.Door, err, row.want)
		}
	}
}
