package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// issueJWT is an issuer of tokens: jwt keys FILE writes its key set, jwt FILE SUBJECT
// a token.
func issueJWT(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: jwt keys FILE | jwt FILE SUBJECT")
	}
	key := ed25519.NewKeyFromSeed([]byte(strings.Repeat("i", 32)))
	text := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	if args[0] == "keys" {
		set := `{"keys":[{"kid":"k1","kty":"OKP","crv":"Ed25519","x":"` + text(key.Public().(ed25519.PublicKey)) + `"}]}`
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(set), 0o600))
		return
	}
	now := time.Now().Unix()
	claims, err := json.Marshal(map[string]any{
		"iss": "https://cluster.example", "aud": []string{"ehsm"}, "sub": args[1], "iat": now, "exp": now + 600,
		"kubernetes.io": map[string]any{"namespace": "shop"},
	})
	ts.Check(err)
	signed := text([]byte(`{"alg":"EdDSA","kid":"k1"}`)) + "." + text(claims)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(signed+"."+text(ed25519.Sign(key, []byte(signed)))+"\n"), 0o600))
}

// TestGramineQuote has pipes in the place of Gramine's files.
func TestGramineQuote(t *testing.T) {
	dir := t.TempDir()
	quote := gramineQuote(dir)
	if _, err := quote(t.Context(), [64]byte{}); err == nil {
		t.Error("no files: there is a quote")
	}
	for _, name := range []string{"user_report_data", "quote"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, row := range map[string]struct {
		made []byte
		ok   bool
	}{
		"a quote": {[]byte("quote over "), true},
		"nothing": {nil, false},
		"long":    {make([]byte, 9000), false},
	} {
		bound := make(chan []byte)
		go func() {
			f, err := os.Open(filepath.Join(dir, "user_report_data"))
			if err != nil {
				t.Error(err)
			}
			b, _ := io.ReadAll(f)
			f.Close()
			to, err := os.OpenFile(filepath.Join(dir, "quote"), os.O_WRONLY, 0)
			if err != nil {
				t.Error(err)
			}
			to.Write(row.made) // who reads may have enough
			to.Close()
			bound <- b
		}()
		b, err := quote(t.Context(), [64]byte{1, 63: 2})
		if got := <-bound; len(got) != 64 || got[0] != 1 || got[63] != 2 {
			t.Errorf("%s: report data is %x", name, got)
		}
		if (err == nil) != row.ok || row.ok && !bytes.Equal(b, row.made) {
			t.Errorf("%s: got %q, %v", name, b, err)
		}
	}
}
