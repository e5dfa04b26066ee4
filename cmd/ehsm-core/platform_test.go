package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAbsentPlatforms has every hardware platform asked for on a machine without
// it: the program refuses to start and says what to do.
func TestAbsentPlatforms(t *testing.T) {
	if _, err := os.Stat("/dev/attestation"); err == nil {
		t.Skip("this is TEE hardware, under Gramine")
	}
	if _, err := os.Stat("/sys/kernel/config/tsm"); err == nil {
		t.Skip("this is TEE hardware, a confidential guest")
	}
	for name, hints := range map[string][]string{
		"gramine": {"gramine-sgx"},
		"ego":     {"-tags ego", "ego run"},        // without and with the tag
		"tsm":     {"-tags tsm", "load tdx_guest"}, // likewise
		"sgx":     {`"sgx" is none of`},
		"SIM":     {`"SIM" is none of`},
	} {
		env := map[string]string{"EHSM_CORE_PLATFORM": name, "EHSM_CORE_SIM": filepath.Join(t.TempDir(), "sim")}
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), nil, func(k string) string { return env[k] }, &stdout, &stderr, false)
		out := stderr.String()
		if code != 1 || !strings.Contains(out, "trusted execution environment not found") {
			t.Errorf("%s: got %d, %s", name, code, out)
		}
		found := false
		for _, h := range hints {
			found = found || strings.Contains(out, h)
		}
		if !found {
			t.Errorf("%s: no hint in %s", name, out)
		}
		if _, err := os.Stat(env["EHSM_CORE_SIM"]); err == nil {
			t.Errorf("%s: fell back to the simulator", name)
		}
	}
}
