package main

import (
	"bytes"
	"encoding/hex"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// TestStatus asks dkeycaches that answer with what docs/provisioning.md says.
func TestStatus(t *testing.T) {
	for _, row := range []struct {
		name, answer string // hex
		code         int
		says         string
	}{
		{"alone", "00000012 01 01 0000000000000000 00000000 00000000", 1, "waits for a dkeyserver\n"},
		{"introduced", "00000012 01 02 0000000000000007 00000000 00000000", 1, "waits for the DomainKey, manifest 7\n"},
		{"ready", "00000012 01 03 0000000000000007 00000002 00000e10", 0, "ready, manifest 7, DomainKey version 2, lease 1h0m0s\n"},
		{"too long", "00100000", 1, "limit 64"},
		{"cut", "00000012 01 03", 1, "read the state"},
		{"rubbish", "00000001 09", 1, "format 9 is unknown"},
		{"nothing", "", 1, "read the state"},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				conn.Read(make([]byte, 1))
				b, _ := hex.DecodeString(strings.ReplaceAll(row.answer, " ", ""))
				conn.Write(b)
			}()
			var stdout, stderr bytes.Buffer
			getenv := func(name string) string {
				return map[string]string{"EHSM_DKEYCACHE_LISTEN": "unix:" + path}[name]
			}
			if code := run(t.Context(), []string{"status"}, getenv, &stdout, &stderr, false); code != row.code || !strings.Contains(stdout.String()+stderr.String(), row.says) {
				t.Errorf("got %d, %s%s", code, &stdout, &stderr)
			}
		})
	}
}

func TestStatusOfNobody(t *testing.T) {
	for _, address := range []string{"unix:/nonexistent/s", "tcp:192.0.2.1:1"} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), []string{"status"}, func(string) string { return address }, &stdout, &stderr, false)
		if code != 1 || stdout.Len() > 0 || !strings.HasPrefix(stderr.String(), "ehsm-dkeycache: ") {
			t.Errorf("%s: got %d, %s%s", address, code, &stdout, &stderr)
		}
	}
}
