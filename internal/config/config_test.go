package config

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func env(pairs ...string) func(string) string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return m[name] }
}

func TestDefaults(t *testing.T) {
	c, err := LoadCore(env("EHSM_CORE_SIM", "/sim"))
	if err != nil || c.Listen != "unix:/run/ehsm/core.sock" || c.Keys != 65536 || c.Platform != "sim" || c.Workers != 0 {
		t.Errorf("core: %+v, %v", c, err)
	}
	k, err := LoadKMS(env("EHSM_KMS_TLS_CERT", "/c", "EHSM_KMS_TLS_KEY", "/k", "EHSM_KMS_IDLE_TIMEOUT", "90s"))
	if err != nil || k.Listen != "0.0.0.0:9000" || k.IdleTimeout != 90*time.Second || k.MaxBody != 102400 {
		t.Errorf("kms: %+v, %v", k, err)
	}
}

func TestRefusalsNameTheSetting(t *testing.T) {
	core := func(e func(string) string) error { _, err := LoadCore(e); return err }
	kms := func(e func(string) string) error { _, err := LoadKMS(e); return err }
	for name, row := range map[string]struct {
		load func(func(string) string) error
		env  []string
		want string
	}{
		"no machine":                   {core, nil, "EHSM_CORE_SIM"},
		"foreign address":              {core, []string{"EHSM_CORE_SIM", "/s", "EHSM_CORE_LISTEN", "tcp:192.0.2.1:1"}, "EHSM_CORE_LISTEN"},
		"no number":                    {core, []string{"EHSM_CORE_SIM", "/s", "EHSM_CORE_KEYS", "many"}, "EHSM_CORE_KEYS"},
		"too small":                    {core, []string{"EHSM_CORE_SIM", "/s", "EHSM_CORE_SEEN", "1"}, "EHSM_CORE_SEEN"},
		"two domains":                  {core, []string{"EHSM_CORE_SIM", "/s", "EHSM_CORE_DKEYCACHE", "unix:/c", "EHSM_CORE_DOMAIN", "/d"}, "EHSM_CORE_DOMAIN and EHSM_CORE_DKEYCACHE"},
		"id of its own":                {core, []string{"EHSM_CORE_SIM", "/s", "EHSM_CORE_DOMAIN_ID", strings.Repeat("ab", 32)}, "EHSM_CORE_DOMAIN_ID"},
		"collateral":                   {core, []string{"EHSM_CORE_SIM", "/s", "EHSM_CORE_COLLATERAL", "/c"}, "EHSM_CORE_COLLATERAL"},
		"guest alone":                  {core, []string{"EHSM_CORE_PLATFORM", "tsm", "EHSM_CORE_DKEYCACHE", "unix:/c"}, "EHSM_CORE_COLLATERAL"},
		"node around an enclave":       {core, []string{"EHSM_CORE_PLATFORM", "gramine", "EHSM_CORE_WHOLE_NODE", "yes"}, "EHSM_CORE_WHOLE_NODE is for guests"},
		"node that others reach":       {core, []string{"EHSM_CORE_SIM", "/s", "EHSM_CORE_WHOLE_NODE", "yes", "EHSM_CORE_LISTEN", "tcp:127.0.0.1:1"}, "EHSM_CORE_WHOLE_NODE needs a unix socket"},
		"perhaps a node":               {core, []string{"EHSM_CORE_SIM", "/s", "EHSM_CORE_WHOLE_NODE", "true"}, "EHSM_CORE_WHOLE_NODE: want yes or no"},
		"evidence for a key of a file": {kms, []string{"EHSM_KMS_TLS_ATTESTED", "yes", "EHSM_KMS_TLS_KEY", "/k"}, "EHSM_KMS_TLS_ATTESTED with a certificate or key"},
		"no certificate":               {kms, nil, "EHSM_KMS_TLS_CERT"},
		"no key":                       {kms, []string{"EHSM_KMS_TLS_CERT", "/c"}, "EHSM_KMS_TLS_KEY"},
		"bad duration":                 {kms, []string{"EHSM_KMS_IDLE_TIMEOUT", "-1s"}, "EHSM_KMS_IDLE_TIMEOUT"},
		"bad base64":                   {kms, []string{"EHSM_CONFIG_OPENSSL_KEY", "secret-key-text!"}, "EHSM_CONFIG_OPENSSL_KEY"},
	} {
		err := row.load(env(row.env...))
		if !errors.Is(err, ErrSetting) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want an error about %s", name, err, row.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret-key-text") {
			t.Errorf("%s: the error repeats a private key", name)
		}
	}
}

func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	cert := filepath.Join(dir, "cert.pem")
	if err := os.WriteFile(cert, []byte("CERT"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadKMS(env("EHSM_KMS_TLS_CERT", cert, "EHSM_CONFIG_OPENSSL_KEY", base64.StdEncoding.EncodeToString([]byte("KEY"))))
	if err != nil {
		t.Fatal(err)
	}
	if a, b, err := c.Certificate(); string(a) != "CERT" || string(b) != "KEY" || err != nil {
		t.Errorf("got %q, %q, %v", a, b, err)
	}
	c.TLSCert = filepath.Join(dir, "none")
	if _, _, err := c.Certificate(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestHelpNamesEverySetting(t *testing.T) {
	for _, s := range append(new(Core).table(), new(KMS).table()...) {
		if !strings.Contains(DescribeCore()+DescribeKMS(), s.name) || s.meaning == "" {
			t.Errorf("%s is not described", s.name)
		}
	}
}

func TestKMSFile(t *testing.T) {
	keys := KMSKeys()
	for _, want := range []string{"listen", "tls_key", "max_body", "idle_timeout"} {
		if !slices.Contains(keys, want) {
			t.Errorf("the file may not have %s", want)
		}
	}
	for _, key := range keys {
		if strings.Contains(key, "openssl") || strings.ToLower(key) != key {
			t.Errorf("the file may have %s", key)
		}
	}
	values := map[string]string{
		"listen": "127.0.0.1:1", "max_body": "2048", "tls_cert": "/c", "tls_key": "/k", "ehsm_config_openssl_key": "no",
	}
	k, err := LoadKMS(WithKMSFile(env("EHSM_KMS_LISTEN", "127.0.0.1:2"), values))
	if err != nil || k.Listen != "127.0.0.1:2" || k.MaxBody != 2048 || k.TLSKey != "/k" || k.CachedRows != 65536 {
		t.Errorf("got %+v, %v", k, err)
	}
	values["max_body"] = "few"
	if _, err := LoadKMS(WithKMSFile(env(), values)); !errors.Is(err, ErrSetting) || !strings.Contains(err.Error(), "MAX_BODY") {
		t.Errorf("wrong value: got %v", err)
	}
}
