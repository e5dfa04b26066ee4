package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ehsm-kms/ehsm/internal/host/dev"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ehsm": main, "acceptcore": fakeCore, "fakedkeyserver": fakeDKeyServer})
}

// TestScripts runs ehsm as its users do, against a real service.
func TestScripts(t *testing.T) {
	pccs, portal := services(t)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("CONFIG", filepath.Join(e.WorkDir, "home", ".config", "ehsm", "config.yaml"))
			// The race detector waits a second at each exit otherwise.
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			e.Setenv("PCCS_URL", pccs.URL)
			e.Setenv("PCCS_CA", pccs.CAFile())
			e.Setenv("PORTAL_URL", portal.URL)
			e.Setenv("PORTAL_CA", portal.CAFile())
			e.Values[serverKey{}] = new(*dev.Server)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"kms":           startKMS,
			"vectors":       vectors,
			"acceptmachine": acceptancePlatform,
			"reword":        reword,
			"complete":      complete,
			"door":          startDoor,
			"released":      released,
			"jwt":           issueJWT,
			"alterjson":     alterJSON,
			"setenv":        setenv,
			"flip":          flip,
			"size":          size,
			"mode":          mode,
			"files":         files,
		},
		RequireUniqueNames: true,
	})
}

// serverKey is where a script keeps its service.
type serverKey struct{}

// startKMS starts a service with the data directory $KMS_DATA, kms or the one
// that is named, and sets $KMS_URL, $KMS_ALIAS, which is another name of the same,
// and $KMS_FINGERPRINT. kms stop stops it, kms
// http has it speak plain http.
func startKMS(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: kms [http | stop | DIR]")
	}
	running := ts.Value(serverKey{}).(**dev.Server)
	if len(args) == 1 && args[0] == "stop" {
		ts.Check((*running).Close())
		return
	}
	data, http := ts.MkAbs("kms"), len(args) == 1 && args[0] == "http"
	if len(args) == 1 && !http {
		data = ts.MkAbs(args[0])
	}
	administrator, custodians, err := firstPeople(data)
	ts.Check(err)
	s, err := dev.Start(context.Background(), dev.Options{Dir: data, Listen: "127.0.0.1:0", PlainHTTP: http, Administrator: administrator, Custodians: custodians})
	ts.Check(err)
	*running = s
	ts.Defer(func() { s.Close() })
	ts.Setenv("KMS_DATA", data)
	ts.Setenv("KMS_URL", s.URL())
	ts.Setenv("KMS_ALIAS", strings.Replace(s.URL(), "127.0.0.1", "localhost", 1))
	ts.Setenv("KMS_FINGERPRINT", s.Fingerprint())
}

// setenv puts the text of a file, without the newline at its end, into a
// variable: setenv NAME stdout.
func setenv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: setenv NAME FILE")
	}
	text := ts.ReadFile(args[1])
	for len(text) > 0 && text[len(text)-1] == '\n' {
		text = text[:len(text)-1]
	}
	ts.Setenv(args[0], text)
}

// flip changes one bit of the byte at an offset of a file, from its end if it is
// negative.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	i, err := strconv.Atoi(args[1])
	ts.Check(err)
	if i < 0 {
		i += len(b)
	}
	b[i] ^= 1
	ts.Check(os.WriteFile(path, b, 0o600))
}

// size cuts a file to a number of bytes, less than its own if it is negative,
// lengthens it with zeros, or fills a new one with a pattern.
func size(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: size FILE BYTES")
	}
	path := ts.MkAbs(args[0])
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		for i := range n {
			b = append(b, byte(i%251))
		}
		ts.Check(os.WriteFile(path, b, 0o600))
		return
	}
	ts.Check(err)
	if n < 0 {
		n += len(b)
	}
	b = append(b, make([]byte, max(n-len(b), 0))...)
	ts.Check(os.WriteFile(path, b[:n], 0o600))
}

// mode checks the permissions of a file.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: mode OCTAL FILE")
	}
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := strconv.FormatUint(uint64(info.Mode().Perm()), 8); (got == args[0]) == neg {
		ts.Fatalf("%s has mode %s", args[1], got)
	}
}

// files checks how many files a pattern matches.
func files(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: files NUMBER PATTERN")
	}
	found, err := filepath.Glob(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := strconv.Itoa(len(found)); got != args[0] {
		ts.Fatalf("%s matches %s files: %v", args[1], got, found)
	}
}
