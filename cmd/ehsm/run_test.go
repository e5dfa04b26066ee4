package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// home returns an environment with an empty home directory.
func home(t *testing.T) func(string) string {
	dir := t.TempDir()
	return func(name string) string {
		return map[string]string{"HOME": dir}[name]
	}
}

func TestExitCodes(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want int
	}{
		{"help", []string{"--help"}, exitOK},
		{"nothing", nil, exitOK},
		{"group", []string{"key"}, exitOK},
		{"help of a command", []string{"help", "key", "create"}, exitOK},
		{"version", []string{"version"}, exitOK},
		{"unknown command", []string{"frob"}, exitUsage},
		{"unknown command of a group", []string{"key", "frob"}, exitUsage},
		{"unknown flag", []string{"key", "list", "--frob"}, exitUsage},
		{"flag without value", []string{"key", "list", "--url"}, exitUsage},
		{"flag of the wrong type", []string{"datakey", "--len", "x"}, exitUsage},
		{"too many arguments", []string{"key", "list", "x"}, exitUsage},
		{"too few arguments", []string{"key", "show"}, exitUsage},
		{"unknown output", []string{"version", "--output", "xml"}, exitUsage},
		{"no profile", []string{"key", "list"}, exitUsage},
		{"bad URL", []string{"key", "list", "--url", "kms:9000"}, exitUsage},
		{"bad fingerprint", []string{"key", "list", "--url", "https://127.0.0.1:1", "--fingerprint", "x"}, exitUsage},
		{"no credentials", []string{"key", "list", "--url", "https://127.0.0.1:1"}, exitError},
		{"nobody listens", []string{"version", "--server", "--url", "https://127.0.0.1:1"}, exitError},
		{"missing file", []string{"audit", "show", "missing"}, exitError},
		{"plain http for others", []string{"dev", "--http", "--listen", "0.0.0.0:0", "--data", "/dev/null/x"}, exitError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			got := run(t.Context(), tt.args, home(t), strings.NewReader(""), &stdout, &stderr)
			if got != tt.want {
				t.Errorf("run: got %d, want %d; stderr %s", got, tt.want, &stderr)
			}
			if got != exitOK && stdout.Len() > 0 {
				t.Errorf("run: a failure printed %q on stdout", &stdout)
			}
			for line := range strings.Lines(stderr.String()) {
				if !strings.HasPrefix(line, "ehsm: ") {
					t.Errorf("run: line on stderr is %q", line)
				}
			}
		})
	}
}

// Every command teaches: it says what it is for and has an example.
func TestHelp(t *testing.T) {
	commands := 0
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, child := range c.Commands() {
			walk(child)
		}
		if c.Hidden {
			return
		}
		commands++
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || !strings.Contains(c.Example, "ehsm ") {
			t.Errorf("%s: short text %q, example %q", c.CommandPath(), c.Short, c.Example)
		}
	}
	walk(newRoot(&app{getenv: home(t)}))
	if commands < 44 {
		t.Errorf("got %d commands, want at least 44", commands)
	}
}

// startDev runs ehsm dev and returns what it printed when it was ready, and a
// function that stops it.
func startDev(t *testing.T, getenv func(string) string, args ...string) (started, func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	code := make(chan int, 1)
	go func() {
		args := append([]string{"dev", "--listen", "127.0.0.1:0", "--output", "json"}, args...)
		code <- run(ctx, args, getenv, strings.NewReader(""), w, io.Discard)
		w.Close()
	}()
	var s started
	if err := json.NewDecoder(bufio.NewReader(r)).Decode(&s); err != nil {
		cancel()
		t.Fatalf("dev: %v, exit %d", err, <-code)
	}
	go io.Copy(io.Discard, r)
	stop := func() int { cancel(); return <-code }
	t.Cleanup(cancel)
	return s, stop
}

func ehsmOK(t *testing.T, getenv func(string) string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), args, getenv, strings.NewReader(""), &stdout, &stderr); code != exitOK {
		t.Fatalf("ehsm %s: exit %d, %s", strings.Join(args, " "), code, &stderr)
	}
	return strings.TrimSpace(stdout.String())
}

// After ehsm dev, ehsm key create works at once; after a second start with the
// same data, on another port, the key is still there.
func TestDev(t *testing.T) {
	env := home(t)
	s, stop := startDev(t, env)
	if s.Profile != devProfile || s.Data != filepath.Join(env("HOME"), ".local", "state", "ehsm") || len(s.Fingerprint) != 64 || !strings.HasSuffix(s.Next, "key create") {
		t.Errorf("dev: printed %+v", s)
	}
	key := ehsmOK(t, env, "key", "create")
	if code := stop(); code != exitOK {
		t.Errorf("dev: exit %d", code)
	}
	again, stop := startDev(t, env)
	if again.Domain != s.Domain || again.URL == s.URL {
		t.Errorf("dev: second start printed %+v after %+v", again, s)
	}
	if got := ehsmOK(t, env, "key", "show", key); !strings.Contains(got, key) {
		t.Errorf("key show: got %s", got)
	}
	stop()
}

// A service that was just started is genuine but simulated, of the domain that the
// profile knows; refused unless that is allowed.
func TestDevAttested(t *testing.T) {
	env := home(t)
	s, stop := startDev(t, env)
	defer stop()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"attest", "verify", "--url", s.URL}, env, nil, &stdout, &stderr); code != exitError ||
		!strings.HasPrefix(stdout.String(), "genuine:           no: ") || !strings.Contains(stderr.String(), "simulated platform") || !strings.Contains(stderr.String(), "--allow-sim") {
		t.Errorf("attest verify: exit %d, %s%s", code, &stdout, &stderr)
	}
	got := ehsmOK(t, env, "attest", "verify", "--url", s.URL, "--allow-sim")
	for _, want := range []string{"genuine:           yes (simulated: no hardware protects these keys)\n", s.Domain + ", as expected\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("attest verify --allow-sim: lacks %q in\n%s", want, got)
		}
	}
	ehsmOK(t, env, "attest", "doctor", "--allow-sim", "--machine", t.TempDir())
}

// Two data directories keep their tenants apart, whatever the profile says.
func TestDevElsewhere(t *testing.T) {
	env := home(t)
	_, stop := startDev(t, env)
	key := ehsmOK(t, env, "key", "create")
	stop()
	_, stop = startDev(t, env, "--data", filepath.Join(env("HOME"), "other"))
	if got := ehsmOK(t, env, "key", "list", "--output", "json"); got != "[]" {
		t.Errorf("key list: got %s", got)
	}
	stop()
	_, stop = startDev(t, env)
	ehsmOK(t, env, "key", "show", key)
	stop()
}

func TestDevProfiles(t *testing.T) {
	env := home(t)
	config := filepath.Join(env("HOME"), ".config", "ehsm", "config.yaml")
	s, stop := startDev(t, env, "--no-profile")
	if _, err := os.Stat(config); err == nil || s.Profile != "" {
		t.Errorf("dev --no-profile: printed %+v and wrote %s", s, config)
	}
	// A profile of that name which somebody else's credentials are in.
	ehsmOK(t, env, "enroll", "--url", s.URL, "--fingerprint", s.Fingerprint, "--profile", "mine")
	before, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	s, stop = startDev(t, env, "--profile", "mine")
	if after, _ := os.ReadFile(config); s.Profile != "" || !bytes.Equal(before, after) {
		t.Errorf("dev --profile mine: overwrote the credentials, printed %+v", s)
	}
	stop()
	s, stop = startDev(t, env, "--profile", "try")
	if s.Profile != "try" || !strings.HasSuffix(s.Next, " --profile try key create") {
		t.Errorf("dev --profile try: printed %+v", s)
	}
	ehsmOK(t, env, "--profile", "try", "key", "create")
	stop()
	// No home, no profile; the service runs all the same.
	s, stop = startDev(t, func(string) string { return "" }, "--data", t.TempDir())
	if s.Profile != "" || s.URL == "" {
		t.Errorf("dev without a home: printed %+v", s)
	}
	stop()
}

func TestDevHTTP(t *testing.T) {
	env := home(t)
	s, stop := startDev(t, env, "--http")
	if s.Fingerprint != "" || !strings.HasPrefix(s.URL, "http://127.0.0.1:") {
		t.Errorf("dev --http: printed %+v", s)
	}
	ehsmOK(t, env, "key", "create")
	stop()
	// The same data over TLS: the profile is not insecure any more.
	_, stop = startDev(t, env)
	var stderr bytes.Buffer
	if code := run(t.Context(), []string{"key", "list"}, env, nil, io.Discard, &stderr); code != exitOK || stderr.Len() > 0 {
		t.Errorf("key list: exit %d, %s", code, &stderr)
	}
	stop()
}

// A command that waits for standard input ends with its context.
func TestInterrupt(t *testing.T) {
	env := home(t)
	_, stop := startDev(t, env)
	defer stop()
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	out := filepath.Join(t.TempDir(), "out")
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"decrypt", "-o", out}, env, r, io.Discard, io.Discard)
	}()
	w.Write([]byte("x")) // returns when the command reads
	cancel()
	if got := <-code; got != exitError {
		t.Errorf("decrypt: exit %d, want %d", got, exitError)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(out), "*")); len(left) > 0 {
		t.Errorf("decrypt: left %v", left)
	}
}

// An envelope would only upset a terminal; base64 may go there.
func TestEncryptToTerminal(t *testing.T) {
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	env := home(t)
	_, stop := startDev(t, env)
	defer stop()
	key := ehsmOK(t, env, "key", "create")
	for input, want := range map[string]int{"hello": exitOK, "": exitUsage, strings.Repeat("x", 7000): exitUsage} {
		if code := run(t.Context(), []string{"encrypt", "--key", key}, env, strings.NewReader(input), tty, io.Discard); code != want {
			t.Errorf("encrypt of %d bytes to a terminal: exit %d, want %d", len(input), code, want)
		}
	}
}
