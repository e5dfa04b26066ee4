package dev

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
)

func start1(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := Start(context.Background(), Options{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(t *testing.T, url string) (int, map[string]any) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("%s: %q: %v", url, b, err)
	}
	return resp.StatusCode, m
}

func TestFirstAndSecondStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := start1(t, dir)
	if !s.First || len(s.Fingerprint()) != 64 || !strings.HasPrefix(s.URL(), "https://127.0.0.1:") {
		t.Errorf("first start: %+v", s)
	}
	for _, path := range []string{"/ehsm?Action=GetVersion", "/ehsm/?Action=GetVersion", "/EHSM?Action=Enroll", "/readyz", "/healthz"} {
		if code, m := get(t, s.URL()+path); code != 200 {
			t.Errorf("%s: HTTP %d, %v", path, code, m)
		}
	}
	domain, print := s.Info.Domain, s.Fingerprint()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	s = start1(t, dir)
	defer s.Close()
	if s.First || s.Info.Domain != domain || s.Fingerprint() != print {
		t.Error("the second start does not find the same domain and certificate")
	}
	if _, err := Start(context.Background(), Options{Dir: dir, Listen: "127.0.0.1:0"}); err == nil {
		t.Error("two servers run on one directory")
	}
}

func TestLostKeysAreNeverReplaced(t *testing.T) {
	for name, lose := range map[string]struct {
		remove string
		want   error
	}{
		"machine":         {SimDir, ErrLost},
		"domain":          {DomainDir, ErrLost},
		"sealed bundle":   {filepath.Join(DomainDir, domainkey.BundleFile), domainkey.ErrSeal},
		"machine secret":  {filepath.Join(SimDir, "machine.secret"), os.ErrNotExist},
		"genesis":         {filepath.Join(DomainDir, domainkey.GenesisFile), os.ErrNotExist},
		"foreign machine": {"", domainkey.ErrSeal},
	} {
		dir := filepath.Join(t.TempDir(), "data")
		start1(t, dir).Close()
		if lose.remove != "" {
			os.RemoveAll(filepath.Join(dir, lose.remove))
		} else {
			other := filepath.Join(t.TempDir(), "data")
			start1(t, other).Close()
			os.RemoveAll(filepath.Join(dir, SimDir))
			os.Rename(filepath.Join(other, SimDir), filepath.Join(dir, SimDir))
		}
		_, err := Start(context.Background(), Options{Dir: dir, Listen: "127.0.0.1:0"})
		if !errors.Is(err, lose.want) {
			t.Errorf("%s: got %v, want %v", name, err, lose.want)
		}
	}
}

func TestPlainHTTPOnlyOnLoopback(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "example.com:0"} {
		if _, err := Start(context.Background(), Options{Dir: t.TempDir(), Listen: addr, PlainHTTP: true}); !errors.Is(err, ErrNotLoopback) {
			t.Errorf("%s: got %v, want ErrNotLoopback", addr, err)
		}
	}
	s, err := Start(context.Background(), Options{Dir: t.TempDir(), Listen: "127.0.0.1:0", PlainHTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if code, _ := get(t, s.URL()+"/ehsm?Action=GetVersion"); code != 200 || s.Fingerprint() != "" {
		t.Errorf("HTTP %d", code)
	}
}
