package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// hsmEnv is a complete environment of ehsm-hsm with one setting changed.
func hsmEnv(name, value string) func(string) string {
	return func(n string) string {
		if n == name {
			return value
		}
		return map[string]string{"EHSM_HSM_MODULE": "/m.so", "EHSM_HSM_TOKEN": "t", "EHSM_HSM_PIN_FILE": "/pin"}[n]
	}
}

func TestHSM(t *testing.T) {
	got, err := LoadHSM(hsmEnv("EHSM_HSM_KEYS", "new, old"))
	want := HSM{
		Listen: "unix:/run/ehsm/hsm.sock", Module: "/m.so", Token: "t", Keys: []string{"new", "old"}, PINFile: "/pin",
		Mechanism: MechanismGCM, Timeout: 10 * time.Second, Connections: 16,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestHSMRefusals(t *testing.T) {
	for _, row := range [][2]string{
		{"EHSM_HSM_MODULE", ""}, {"EHSM_HSM_TOKEN", ""}, {"EHSM_HSM_PIN_FILE", ""},
		{"EHSM_HSM_MODULE", "libsofthsm2.so"}, {"EHSM_HSM_KEYS", "a,a"}, {"EHSM_HSM_KEYS", "a,"}, {"EHSM_HSM_KEYS", ","},
		{"EHSM_HSM_MECHANISM", "ecb"}, {"EHSM_HSM_TIMEOUT", "0s"}, {"EHSM_HSM_TIMEOUT", "2m"}, {"EHSM_HSM_CONNECTIONS", "0"},
		{"EHSM_HSM_LISTEN", "tcp:0.0.0.0:1"}, {"EHSM_HSM_LISTEN", "hsm.sock"},
	} {
		if _, err := LoadHSM(hsmEnv(row[0], row[1])); !errors.Is(err, ErrSetting) || !strings.Contains(err.Error(), row[0]) {
			t.Errorf("%s=%q: got %v, want ErrSetting that names it", row[0], row[1], err)
		}
	}
}
