package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestUsage(t *testing.T) {
	good := map[string]string{
		"EHSM_DKEYCACHE_SERVERS": "a:8888,b:8888", "EHSM_DKEYCACHE_DOMAIN_ID": strings.Repeat("ab", 32),
		"EHSM_DKEYCACHE_COLLATERAL": "/c", "EHSM_DKEYCACHE_PLATFORM": "none",
	}
	for _, row := range []struct {
		name, args  string
		set, to     string
		code        int
		says        string
		withoutGood bool
	}{
		{"help", "--help", "", "", 0, "EHSM_DKEYCACHE_SERVERS", true},
		{"version", "version", "", "", 0, "ehsm-dkeycache", true},
		{"unknown argument", "serve", "", "", 2, "hint: ehsm-dkeycache --help", true},
		{"no settings", "", "", "", 1, "EHSM_DKEYCACHE_DOMAIN_ID", true},
		{"no such platform", "", "", "", 1, "is none of sim", false},
		{"short id", "", "EHSM_DKEYCACHE_DOMAIN_ID", "abcd", 1, "64 lower-case hex digits", false},
		{"id in capitals", "", "EHSM_DKEYCACHE_DOMAIN_ID", strings.Repeat("AB", 32), 1, "64 lower-case hex digits", false},
		{"no port", "", "EHSM_DKEYCACHE_SERVERS", "a:8888,b", 1, "host:port", false},
		{"empty server", "", "EHSM_DKEYCACHE_SERVERS", "a:8888,", 1, "host:port", false},
		{"rare heartbeat", "", "EHSM_DKEYCACHE_HEARTBEAT", "1h", 1, "30s", false},
		{"foreign address", "", "EHSM_DKEYCACHE_LISTEN", "tcp:192.0.2.1:1", 1, "loopback", false},
		{"no simulated machine", "", "EHSM_DKEYCACHE_PLATFORM", "sim", 1, "EHSM_DKEYCACHE_SIM", false},
		{"no collateral", "", "EHSM_DKEYCACHE_COLLATERAL", " ", 1, "", false},
	} {
		getenv := func(name string) string {
			switch {
			case row.withoutGood:
				return ""
			case name == row.set:
				return strings.TrimSpace(row.to)
			}
			return good[name]
		}
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), strings.Fields(row.args), getenv, &stdout, &stderr, false)
		if code != row.code || !strings.Contains(stdout.String()+stderr.String(), row.says) {
			t.Errorf("%s: got %d, %s%s", row.name, code, &stdout, &stderr)
		}
	}
}
