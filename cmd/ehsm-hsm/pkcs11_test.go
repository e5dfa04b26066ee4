//go:build pkcs11

package main

import (
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/hsm/hsmtest"
)

// notHere is what is said of an HSM that cannot be used.
const notHere = "cannot be loaded"

// TestKeys makes and checks a key of each mechanism.
func TestKeys(t *testing.T) {
	s := hsmtest.New(t, t.TempDir())
	t.Setenv("SOFTHSM2_CONF", s.Config)
	s.InitToken(t, "ehsm")
	for _, mechanism := range []string{"gcm", "key-wrap-pad"} {
		env := map[string]string{"EHSM_HSM_MODULE": s.Library, "EHSM_HSM_TOKEN": "ehsm", "EHSM_HSM_PIN_FILE": s.PINFile, "EHSM_HSM_MECHANISM": mechanism, "EHSM_HSM_KEYS": mechanism}
		for _, row := range []struct {
			args []string
			code int
			want string
		}{
			{[]string{"check"}, 1, `there is no "` + mechanism},
			{[]string{"init-key", mechanism}, 0, "has the key " + mechanism + ", AES-256"},
			{[]string{"init-key", mechanism}, 1, "already"},
			{[]string{"check"}, 0, "wraps and unwraps with " + mechanism},
		} {
			code, stdout, stderr := call(t, env, row.args...)
			if code != row.code || !strings.Contains(stdout+stderr, row.want) || strings.Contains(stdout+stderr, hsmtest.PIN) {
				t.Errorf("%v with %s: got %d, %q, %q", row.args, mechanism, code, stdout, stderr)
			}
		}
	}
}
