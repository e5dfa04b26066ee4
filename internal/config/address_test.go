package config

import (
	"errors"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for s, want := range map[string][2]string{
		"unix:/run/ehsm/core.sock":   {"unix", "/run/ehsm/core.sock"},
		"unix:/with:colon":           {"unix", "/with:colon"},
		"tcp:127.0.0.1:9001":         {"tcp", "127.0.0.1:9001"},
		"tcp:127.9.9.9:0":            {"tcp", "127.9.9.9:0"},
		"tcp:[::1]:9001":             {"tcp", "[::1]:9001"},
		"tcp:[::ffff:127.0.0.1]:901": {"tcp", "[::ffff:127.0.0.1]:901"},
	} {
		network, address, err := ParseAddress(s)
		if err != nil || network != want[0] || address != want[1] {
			t.Errorf("%s: got %s, %s, %v", s, network, address, err)
		}
	}
	for name, s := range map[string]string{
		"empty": "", "no network": "/run/core.sock", "relative path": "unix:core.sock", "no path": "unix:",
		"abstract socket": "unix:@core", "all interfaces": "tcp:0.0.0.0:9001", "no host": "tcp::9001",
		"other machine": "tcp:10.0.0.1:9001", "name": "tcp:localhost:9001", "no port": "tcp:127.0.0.1",
		"port too large": "tcp:127.0.0.1:99999", "named port": "tcp:127.0.0.1:http", "udp": "udp:127.0.0.1:9001",
		"all interfaces, IPv6": "tcp:[::]:9001", "upper case": "TCP:127.0.0.1:9001", "zone": "tcp:[fe80::1%lo]:9001",
	} {
		if network, address, err := ParseAddress(s); !errors.Is(err, ErrAddress) {
			t.Errorf("%s: got %s, %s, %v", name, network, address, err)
		}
	}
}
