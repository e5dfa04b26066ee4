package main

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// complete makes a genesis of a draft, as the TEE does: complete DRAFT GENESIS.
func complete(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: complete DRAFT GENESIS")
	}
	d, err := manifest.ParseDraft([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	b, err := d.Complete(key, nil, time.Now().Add(-time.Hour)).Encode()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}

// fakeRestore makes the directory of a backup and of manifests, as if custodians had
// come: without a DomainKey, as on a platform without seal keys.
func fakeRestore(dir string, paths []string) error {
	b, err := os.ReadFile(paths[0])
	if err != nil {
		return err
	}
	backup, err := escrow.ParseBackup(b)
	if err != nil {
		return err
	}
	for _, path := range paths[1:] {
		if b, err = os.ReadFile(path); err != nil {
			return err
		}
		backup.Manifests = append(backup.Manifests, b)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for i, m := range backup.Manifests {
		name := manifest.GenesisFile
		if i > 0 {
			name = manifest.FileName(uint64(i + 1))
		}
		if os.Getenv("FAKE") == "lie" {
			m = []byte("{}")
		}
		if err := os.WriteFile(filepath.Join(dir, name), m, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// fakeDKeyServer makes a domain as ehsm-dkeyserver init does: of one key, and without
// a TEE. $FAKE has it fail.
func fakeDKeyServer() {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "ehsm-dkeyserver:", err)
			os.Exit(1)
		}
	}
	if os.Getenv("FAKE") == "refuse" {
		fail(errors.New("a domain exists already"))
	}
	if os.Args[1] == "restore" {
		fail(fakeRestore(os.Getenv("EHSM_DKEYSERVER_DOMAIN"), os.Args[2:]))
		return
	}
	b, err := os.ReadFile(os.Args[len(os.Args)-1])
	fail(err)
	d, err := manifest.ParseDraft(b)
	fail(err)
	if without := slices.Contains(os.Args, "--no-recovery"); without != (d.Custodians == nil) {
		fail(errors.New("custodians and --no-recovery"))
	}
	if os.Getenv("FAKE") == "alter" {
		d.Operators.Threshold = 1
	}
	m := d.Complete(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize)).Public().(ed25519.PublicKey), nil, time.Now().Add(-time.Hour))
	b, err = m.Encode()
	fail(err)
	dir := os.Getenv("EHSM_DKEYSERVER_DOMAIN")
	fail(os.MkdirAll(dir, 0o700))
	fail(os.WriteFile(filepath.Join(dir, manifest.GenesisFile), b, 0o600))
	if os.Getenv("FAKE") == "lie" {
		fmt.Println(strings.Repeat("ab", 32))
		return
	}
	fmt.Println(m.Hash())
}

// alterJSON replaces a text in a file once: alterjson FILE OLD NEW.
func alterJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: alterjson FILE OLD NEW")
	}
	b := []byte(ts.ReadFile(args[0]))
	if !bytes.Contains(b, []byte(args[1])) {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), bytes.Replace(b, []byte(args[1]), []byte(args[2]), 1), 0o600))
}

// TestKeyFiles has known answers: a key file of a released version stays readable.
func TestKeyFiles(t *testing.T) {
	seed := bytes.Repeat([]byte{1}, secretSize)
	for _, row := range []struct {
		duty           manifest.Duty
		secret, public string // how they begin
	}{
		{manifest.Operator, "ehsm-operator-secret-v1 alice AQEB", "ehsm-operator-v1 alice iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=\n"},
		{manifest.Administrator, "ehsm-administrator-secret-v1 alice AQEB", "ehsm-administrator-v1 alice iojj3XQJ"},
		{manifest.Custodian, "ehsm-custodian-secret-v1 alice AQEB", "ehsm-custodian-v1 alice "},
	} {
		k, err := parseSecret(row.duty, "alice", bytes.Clone(seed))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(k.text(), row.secret) || !strings.HasPrefix(k.public(), row.public) {
			t.Errorf("%s: got %.40q and %.60q", row.duty, k.text(), k.public())
		}
		if again, err := parseKeyFile([]byte(k.text())); err != nil || !reflect.DeepEqual(again, k) {
			t.Errorf("%s: got %+v, %v", row.duty, again, err)
		}
		made, err := newKeyFile(row.duty, "bob")
		if err != nil || bytes.Equal(made.secret, seed) || len(made.person.Key) != row.duty.KeySize() {
			t.Errorf("%s: made %+v, %v", row.duty, made, err)
		}
		for name, text := range map[string]string{
			"public": k.public(), "cut": k.text()[:len(k.text())-2], "two lines": k.text() + k.text(), "no line feed": strings.TrimSpace(k.text()),
			"other duty": strings.Replace(k.text(), string(row.duty), "king", 1), "other name": strings.Replace(k.text(), "alice", "al/ce", 1),
			"short": strings.Replace(k.text(), "AQEBAQEB", "AQEB", 1), "empty": "",
		} {
			if _, err := parseKeyFile([]byte(text)); !errors.Is(err, errKeyFile) || strings.Contains(err.Error(), "AQEB") {
				t.Errorf("%s: %s: got %v", row.duty, name, err)
			}
		}
	}
}

func FuzzParseKeyFile(f *testing.F) {
	for _, d := range manifest.Duties() {
		k, err := parseSecret(d, "alice", bytes.Repeat([]byte{1}, secretSize))
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(k.text()))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := parseKeyFile(b); err == nil && k.text() != string(b) {
			t.Errorf("two texts of one key: %q and %q", b, k.text())
		}
	})
}

func draftTerms() *manifest.Terms {
	s := manifest.Defaults(manifest.Production)
	s.Platforms = []manifest.Platform{{Name: "one", PPID: manifest.PPID{1}}, {Name: "two", PPID: manifest.PPID{2}}}
	return &manifest.Terms{Root: manifest.Seal, Settings: s, Operators: manifest.Quorum{Threshold: 1, Members: []manifest.Person{{Name: "alice", Key: []byte{1}}}}}
}

func TestEdits(t *testing.T) {
	patch := filepath.Join(t.TempDir(), "patch.json")
	if err := os.WriteFile(patch, []byte(`{"settings": {"leaseHours": 5, "platforms": null, "trustRoots": ["a", "b"]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := (&edits{
		from: patch, remove: []string{"settings.trustRoots=a"},
		add: []string{`settings.platforms={"name":"three","ppid":"0300000000000000000000000000000A"}`, "settings.disabledPaddings=EH_RSA_PKCS1"},
		set: []string{"settings.mode=development", "settings.allowSim=true", "operators.threshold=2", "settings.minEvaluationNumber=0"},
	}).apply(draftTerms())
	if err != nil {
		t.Fatal(err)
	}
	s := &got.Settings
	if s.Lease != 5 || len(s.Platforms) != 1 || s.Platforms[0].PPID[15] != 10 || !slices.Equal(s.TrustRoots, []string{"b"}) ||
		s.Mode != manifest.Development || !s.AllowSim || got.Operators.Threshold != 2 || len(s.DisabledPaddings) != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestEditRefusals(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, row := range []struct {
		name string
		e    edits
		text string
	}{
		{"no value", edits{set: []string{"settings.leaseHours"}}, "form path=value"},
		{"no path", edits{set: []string{"=1"}}, "form path=value"},
		{"no such object", edits{set: []string{"setting.leaseHours=1"}}, "no manifest has a member setting"},
		{"into a list", edits{set: []string{"settings.platforms.name=x"}}, "platforms is no object"},
		{"unknown member", edits{set: []string{"settings.allowDebug=true"}}, "allowDebug"},
		{"unknown member that says nothing", edits{set: []string{"settings.allowDebug=false"}}, "allowDebug"},
		{"other case", edits{set: []string{"settings.AllowSim=true"}}, "no manifest has a member AllowSim"},
		{"other case that says nothing", edits{set: []string{"settings.AllowSim=false"}}, "no manifest has a member AllowSim"},
		{"other case in a list", edits{add: []string{`settings.platforms={"Name":"three","ppid":"03000000000000000000000000000000"}`}}, "no manifest has a member Name"},
		{"unknown in a list", edits{add: []string{`settings.platforms={"name":"three","serial":"03"}`}}, "serial"},
		{"text for a number", edits{set: []string{"settings.leaseHours=many"}}, "leaseHours"},
		{"number for a text", edits{set: []string{"settings.mode=1"}}, "mode"},
		{"fraction", edits{set: []string{"settings.leaseHours=1.5"}}, "leaseHours"},
		{"member at another place", edits{set: []string{"settings.threshold=1"}}, "unknown field \"threshold\""},
		{"version", edits{set: []string{"version=7"}}, "version"},
		{"domain", edits{set: []string{"domain=00"}}, "domain"},
		{"domain key", edits{set: []string{"domainKey=AAAA"}}, "domainKey"},
		{"add to no list", edits{add: []string{"settings.mode=x"}}, "it is no list"},
		{"remove from no list", edits{remove: []string{"settings.code=core"}}, "it is no list"},
		{"remove nobody", edits{remove: []string{"settings.platforms=three"}}, `no entry is named "three"`},
		{"remove two", edits{from: file("twice", `{"settings":{"code":[{"role":"core"},{"role":"core"}]}}`), remove: []string{"settings.code=core"}}, "2 entries"},
		{"no patch", edits{from: filepath.Join(dir, "missing")}, "no such file"},
		{"patch is a list", edits{from: file("list", "[]")}, "want one JSON object"},
		{"two patches", edits{from: file("two", "{}{}")}, "want one JSON object"},
		{"nobody's key", edits{add: []string{"operators.members=@" + file("nobody", "x")}}, "public key"},
		{"custodian's key that encrypts nothing", edits{add: []string{"custodians.members=@" + file("zero", manifest.Person{Name: "x", Key: bytes.Repeat([]byte{0xff}, manifest.Custodian.KeySize())}.PublicText(manifest.Custodian))}}, "zero"},
		{"private key", edits{add: []string{"operators.members=@" + file("private", "ehsm-operator-secret-v1 alice AQEB\n")}}, "private is a private key"},
		{"no key file", edits{add: []string{"operators.members=@" + filepath.Join(dir, "gone")}}, "no such file"},
	} {
		if _, err := row.e.apply(draftTerms()); err == nil || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.text)
		}
	}
}
