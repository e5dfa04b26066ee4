package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Mechanisms of an HSM.
const (
	MechanismGCM        = "gcm"          // CKM_AES_GCM
	MechanismKeyWrapPad = "key-wrap-pad" // CKM_AES_KEY_WRAP_PAD
)

// HSM are the settings of ehsm-hsm. They come from the environment only.
type HSM struct {
	Listen      string   // stream address for dkeyservers of this machine
	Module      string   // path of the PKCS#11 library
	Token       string   // label
	Keys        []string // labels, the one for new bundles first
	PINFile     string
	Mechanism   string        // MechanismGCM or MechanismKeyWrapPad
	Timeout     time.Duration // of one request
	Connections int
}

func (c *HSM) table() []setting {
	return []setting{
		{"EHSM_HSM_LISTEN", "unix:/run/ehsm/hsm.sock", "address for ehsm-dkeyserver: unix:/PATH, which only this user opens; or tcp:127.0.0.1:PORT, which every user of this machine does, for run-times of enclaves that share no sockets with the host", address(&c.Listen)},
		{"EHSM_HSM_MODULE", "", "path of the PKCS#11 library of the HSM, such as /usr/lib/softhsm/libsofthsm2.so", text(&c.Module)},
		{"EHSM_HSM_TOKEN", "", "label of the token", text(&c.Token)},
		{"EHSM_HSM_KEYS", "ehsm", "labels of AES-256 keys in the token, by commas: the first wraps what is new, all of them unwrap", labels(&c.Keys)},
		{"EHSM_HSM_PIN_FILE", "", "file with the PIN of the token's user, which only its owner reads and writes; read anew for each login", text(&c.PINFile)},
		{"EHSM_HSM_MECHANISM", MechanismGCM, "how the HSM wraps: gcm, CKM_AES_GCM, or key-wrap-pad, CKM_AES_KEY_WRAP_PAD; what was wrapped by the other is unwrapped by that", oneOf(&c.Mechanism, MechanismGCM, MechanismKeyWrapPad)},
		{"EHSM_HSM_TIMEOUT", "10s", "for one request, with a login if it takes one", span(&c.Timeout)},
		{"EHSM_HSM_CONNECTIONS", "16", "connections at a time; further ones are closed", number(&c.Connections, 1)},
	}
}

// LoadHSM reads and checks all settings. Errors name each one that is wrong.
func LoadHSM(getenv func(string) string) (HSM, error) {
	var c HSM
	errs := []error{load(c.table(), getenv)}
	for _, s := range []struct{ name, value, want string }{
		{"EHSM_HSM_MODULE", c.Module, "name the PKCS#11 library of the HSM"},
		{"EHSM_HSM_TOKEN", c.Token, "name the token by its label"},
		{"EHSM_HSM_PIN_FILE", c.PINFile, "name the file with the PIN"},
	} {
		if s.value == "" {
			errs = append(errs, missing(s.name, s.want))
		}
	}
	// A name without a directory is searched for in directories of the linker.
	if c.Module != "" && !filepath.IsAbs(c.Module) {
		errs = append(errs, fmt.Errorf("%w: EHSM_HSM_MODULE: path %q is not absolute", ErrSetting, c.Module))
	}
	// The sidecar answers in time or not at all.
	if c.Timeout > time.Minute {
		errs = append(errs, fmt.Errorf("%w: EHSM_HSM_TIMEOUT: want at most 1m", ErrSetting))
	}
	return c, errors.Join(errs...)
}

// DescribeHSM lists the settings for --help.
func DescribeHSM() string { return describe(new(HSM).table()) }

// labels takes names by commas, each once. What a label may be, ehsm-hsm says.
func labels(v *[]string) func(string) error {
	return func(s string) error {
		var all []string
		for label := range strings.SplitSeq(s, ",") {
			label = strings.TrimSpace(label)
			if label == "" || slices.Contains(all, label) {
				return errors.New("want labels by commas, each once")
			}
			all = append(all, label)
		}
		*v = all
		return nil
	}
}
