package main

import (
	"bytes"
	"strings"
	"testing"
)

// call runs the program with an environment.
func call(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, func(name string) string { return env[name] }, &out, &errs, false)
	return code, out.String(), errs.String()
}

// complete is a complete environment, of a token that is not there.
func complete() map[string]string {
	return map[string]string{"EHSM_HSM_MODULE": "/nonexistent.so", "EHSM_HSM_TOKEN": "t", "EHSM_HSM_PIN_FILE": "/nonexistent"}
}

func TestCommandLine(t *testing.T) {
	for _, row := range []struct {
		name           string
		env            map[string]string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"help", nil, []string{"--help"}, 0, "EHSM_HSM_PIN_FILE", ""},
		{"version", nil, []string{"version"}, 0, "ehsm-hsm ", ""},
		{"unknown", nil, []string{"wrap"}, 2, "", "hint: ehsm-hsm --help"},
		{"a PIN in the arguments", complete(), []string{"serve", "--pin", "1234"}, 2, "", "unknown arguments"},
		{"no label", complete(), []string{"init-key"}, 2, "", "unknown arguments"},
		{"no settings", nil, nil, 1, "", "EHSM_HSM_MODULE is not set"},
		{"no library", complete(), []string{"check"}, 1, "", notHere},
		{"no library for a key", complete(), []string{"init-key", "k"}, 1, "", notHere},
	} {
		code, stdout, stderr := call(t, row.env, row.args...)
		if code != row.code || !strings.Contains(stdout, row.stdout) || !strings.Contains(stderr, row.stderr) || (row.stderr == "") != (stderr == "") {
			t.Errorf("%s: got %d, %q, %q", row.name, code, stdout, stderr)
		}
	}
}
