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

// free is an address that nobody listens on.
func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// get compares what the manager answers.
func get(t *testing.T, client *http.Client, url string, status int, want string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status || string(body) != want {
		t.Errorf("%s: got HTTP %d %s, %v", url, resp.StatusCode, body, err)
	}
}

// TestRun starts the manager before the core, has it serve, and stops it. While it
// waits it says so to who asks.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, roots := certificate(t, dir)
	env := map[string]string{
		"EHSM_KMS_LISTEN": free(t), "EHSM_KMS_CORE": "unix:" + filepath.Join(dir, "core.sock"),
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
	go io.Copy(io.Discard, says)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	url := "https://" + env["EHSM_KMS_LISTEN"]
	get(t, client, url+"/healthz", 200, `{"status":"ok"}`)
	get(t, client, url+"/readyz", 503, `{"checks":{"core":"failing","store":"failing"},"ready":false}`)
	get(t, client, url+"/ehsm?Action=GetVersion", 200, `{"code":500,"message":"Server internal error, please contact the administrator.","result":{}}`)
	listen(t, env["EHSM_KMS_CORE"], &echoCore{info: wire.Info{Instance: wire.NewUUID()}})
	for ready := false; !ready; {
		resp, err := client.Get(url + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		ready = resp.StatusCode == 200
		resp.Body.Close()
	}
	get(t, client, url+"/readyz", 200, `{"checks":{"audit":"ok","core":"ok","facts":"ok","store":"ok"},"ready":true}`)
	get(t, client, url+"/ehsm?Action=GetVersion", 200, `{"code":200,"message":"success!","result":{"version":"echo","git_sha":""}}`)
	get(t, client, url+"/ehsm/?Action=ListKey", 200, `{"code":400,"message":"Missing required parameters","result":{}}`)
	client.CloseIdleConnections()
	stop()
	if c := <-code; c != 0 {
		t.Errorf("exit code %d after an orderly end", c)
	}
}
