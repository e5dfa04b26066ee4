package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

func TestUsage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kms.yaml")
	if err := os.WriteFile(file, []byte("tls_cert: /nowhere\ntls_key: /nowhere\nlisten: 127.0.0.1:0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		args           []string
		env            map[string]string
		code           int
		stdout, stderr string // parts
	}{
		"help":             {[]string{"--help"}, nil, 0, "EHSM_KMS_LISTEN", ""},
		"version":          {[]string{"--version"}, nil, 0, "ehsm-kms ", ""},
		"unknown argument": {[]string{"--listen"}, nil, 2, "", "hint: ehsm-kms --help"},
		"no certificate":   {nil, nil, 1, "", "EHSM_KMS_TLS_CERT is not set"},
		"no key either":    {nil, nil, 1, "", "\nehsm-kms: invalid setting: EHSM_KMS_TLS_KEY is not set"},
		"certificate gone": {nil, map[string]string{"EHSM_KMS_TLS_CERT": "/nowhere", "EHSM_KMS_TLS_KEY": "/nowhere"}, 1, "", "read the TLS certificate"},
		"from a file":      {nil, map[string]string{"EHSM_KMS_CONFIG": file}, 1, "", "read the TLS certificate: open /nowhere"},
		"file and more":    {nil, map[string]string{"EHSM_KMS_CONFIG": file, "EHSM_KMS_TLS_CERT": "/elsewhere"}, 1, "", "open /elsewhere"},
		"file gone":        {nil, map[string]string{"EHSM_KMS_CONFIG": file + "x"}, 1, "", "settings file"},
		"no PCCS":          {nil, map[string]string{"EHSM_KMS_COLLATERAL": "pccs"}, 1, "", "EHSM_KMS_COLLATERAL_URL is not set"},
		"core elsewhere":   {nil, map[string]string{"EHSM_KMS_CORE": "tcp:10.0.0.1:9"}, 1, "", "EHSM_KMS_CORE"},
	} {
		var stdout, stderr bytes.Buffer
		getenv := func(name string) string { return row.env[name] }
		code := run(t.Context(), row.args, getenv, &stdout, &stderr, false)
		if code != row.code || !strings.Contains(stdout.String(), row.stdout) || !strings.Contains(stderr.String(), row.stderr) {
			t.Errorf("%s: got %d, stdout %q, stderr %q", name, code, &stdout, &stderr)
		}
		if row.code == 0 && stderr.Len() > 0 || row.code != 0 && stdout.Len() > 0 {
			t.Errorf("%s: results and errors are mixed up: stdout %q, stderr %q", name, &stdout, &stderr)
		}
	}
}

// certificate writes a self-signed certificate for 127.0.0.1 and its key.
func certificate(t *testing.T, dir string) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	model := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, model, model, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	for file, b := range map[string][]byte{
		certFile: certPEM, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, roots
}

// TestRun starts the manager before the core, has it serve, and stops it.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, roots := certificate(t, dir)
	env := map[string]string{
		"EHSM_KMS_LISTEN": "127.0.0.1:0", "EHSM_KMS_CORE": "unix:" + filepath.Join(dir, "core.sock"),
		"EHSM_KMS_DATABASE": filepath.Join(dir, "ehsm.db"), "EHSM_KMS_AUDIT": filepath.Join(dir, "audit"),
		"EHSM_KMS_TLS_CERT": certFile, "EHSM_KMS_TLS_KEY": keyFile,
	}
	says, stderr := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, nil, func(name string) string { return env[name] }, io.Discard, stderr, false)
		stderr.Close()
	}()
	lines := bufio.NewScanner(says)
	for _, want := range []string{"has no source of collateral: VerifyQuote will be refused", "hint: EHSM_KMS_COLLATERAL=pcs", "waits for the core on " + env["EHSM_KMS_CORE"]} {
		if !lines.Scan() || !strings.Contains(lines.Text(), want) {
			t.Errorf("got line %q, want %q", lines.Text(), want)
		}
	}
	listen(t, env["EHSM_KMS_CORE"], &echoCore{info: wire.Info{Instance: wire.NewUUID()}})
	var url string
	for url == "" && lines.Scan() {
		_, url, _ = strings.Cut(lines.Text(), "ehsm-kms: serves ")
	}
	go io.Copy(io.Discard, says)

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	for path, want := range map[string]string{
		"/ehsm?Action=GetVersion": `{"code":200,"message":"success!","result":{"version":"echo","git_sha":""}}`,
		"/ehsm/?Action=ListKey":   `{"code":400,"message":"Missing required parameters","result":{}}`,
		"/readyz":                 `{"checks":{"audit":"ok","core":"ok","store":"ok"},"ready":true}`,
	} {
		resp, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || string(body) != want {
			t.Errorf("%s: got HTTP %d %s, %v", path, resp.StatusCode, body, err)
		}
	}
	client.CloseIdleConnections()
	stop()
	if c := <-code; c != 0 {
		t.Errorf("exit code %d after an orderly end", c)
	}
}
