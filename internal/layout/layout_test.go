// Package layout holds tests only: they keep the trees apart that the trust
// model keeps apart.
package layout

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ehsm-kms/ehsm"

// rules says what each tree of the module may import of the module. The longest
// prefix counts.
var rules = []struct {
	tree    string
	imports []string
}{
	{"api", []string{"api"}},
	{"client/ehsm", []string{"api", "client/ehsm"}},
	{"client/ehsmtest", []string{"api", "client/ehsm", "internal/host/dev"}},
	{"docs/examples", []string{"api", "client/ehsm"}},
	{"client/ehsm/attested", []string{"api", "client/ehsm", "internal/attest"}},
	{"internal/attest", []string{"api", "internal/wire", "internal/attest"}},
	{"internal/bench", []string{"api", "client/ehsm", "internal/bench"}},
	{"internal/config", []string{"internal/config"}},
	{"internal/wire", []string{"api", "internal/wire"}},
	{"internal/fair", nil},
	{"internal/host", []string{"api", "internal/wire", "internal/config", "internal/fair", "internal/host"}},
	{"internal/host/collateral", []string{"api", "internal/wire", "internal/config", "internal/attest"}},
	{"internal/host/dev", []string{"api", "internal/wire", "internal/config", "internal/host", "internal/trusted"}},
	{"internal/trusted", []string{"api", "internal/wire", "internal/config", "internal/attest", "internal/fair", "internal/trusted", "internal/failpoint"}},
	{"internal/trusted/serve", []string{"internal/wire", "internal/config", "internal/fair"}},
	{"internal/trusted/launch", []string{"api", "internal/wire", "internal/config", "internal/attest", "internal/trusted", "internal/harden"}},
	{"internal/failpoint", nil},
	{"internal/layout", nil},
	{"internal/mutants", nil},
	{"internal/harden", []string{"internal/harden"}},
	{"deploy", nil},
	{"test", []string{"api", "client", "internal", "test"}},
	{"cmd/ehsm", []string{"api", "client/ehsm", "internal/config", "internal/wire", "internal/bench", "internal/attest", "internal/harden", "internal/host/dev", "internal/host/collateral", "cmd/ehsm"}},
	{"cmd/ehsm-hsm", []string{"api", "internal/config", "internal/harden", "internal/host/hsm"}},
	{"cmd/ehsm-kms", []string{"api", "internal/config", "internal/harden", "internal/wire", "internal/host"}},
	{"cmd/ehsm-simtee", []string{"api", "internal/config", "internal/harden", "internal/wire", "internal/trusted/tee", "internal/trusted/secret", "internal/attest"}},
	{"cmd/ehsm-dkeycache", []string{"api", "internal/config", "internal/wire", "internal/trusted"}},
	{"cmd/ehsm-dkeyserver", []string{"api", "internal/config", "internal/wire", "internal/trusted", "internal/failpoint"}},
	{"cmd/ehsm-core", []string{"api", "internal/config", "internal/harden", "internal/wire", "internal/trusted"}},
}

type pkg struct {
	ImportPath   string
	Standard     bool
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	out, err := goRun("list", append([]string{"-json=ImportPath,Standard,Imports,TestImports,XTestImports"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	var pkgs []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func goRun(command string, args ...string) ([]byte, error) {
	var stderr bytes.Buffer
	c := exec.Command("go", append([]string{command}, args...)...)
	c.Env = append(os.Environ(), "CGO_ENABLED=1") // or files with cgo would not be listed
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w: %s", command, err, &stderr)
	}
	return out, nil
}

func in(tree, path string) bool { return path == tree || strings.HasPrefix(path, tree+"/") }

func ruleFor(path string) (imports []string, ok bool) {
	best := -1
	for i, r := range rules {
		if in(r.tree, path) && (best < 0 || len(r.tree) > len(rules[best].tree)) {
			best = i
		}
	}
	if best < 0 {
		return nil, false
	}
	return rules[best].imports, true
}

// teePrograms are what runs in TEEs.
var teePrograms = []string{module + "/cmd/ehsm-core", module + "/cmd/ehsm-dkeycache", module + "/cmd/ehsm-dkeyserver"}

// tagSets are the ways in which the TEE programs are built, each with the list of
// what it links.
var tagSets = []struct{ tags, file string }{
	{"", "../../trusted-deps.txt"},
	{"tsm", "../../trusted-deps-tsm.txt"},
	{"ego", "../../trusted-deps-ego.txt"},
}

func TestImports(t *testing.T) {
	for _, set := range tagSets {
		t.Run("tags "+set.tags, func(t *testing.T) { checkImports(t, set.tags) })
	}
	t.Run("tags pkcs11", func(t *testing.T) { checkImports(t, "pkcs11") })
}

func checkImports(t *testing.T, tags string) {
	pkgs := list(t, "-tags="+tags, module+"/...")
	checked := 0
	for _, p := range pkgs {
		path := strings.TrimPrefix(p.ImportPath, module+"/")
		allowed, ok := ruleFor(path)
		if !ok {
			t.Errorf("%s is in no tree of the rules", path)
		}
		for _, imported := range p.Imports {
			dep, ours := strings.CutPrefix(imported, module+"/")
			if !ours {
				continue
			}
			checked++
			if !slices.ContainsFunc(allowed, func(tree string) bool { return in(tree, dep) }) {
				t.Errorf("%s imports %s", path, dep)
			}
		}
	}
	if checked == 0 {
		t.Error("no import was checked")
	}
}

// TestOnlyDevJoinsTheTrees names the only importers of internal/host/dev.
func TestOnlyDevJoinsTheTrees(t *testing.T) {
	for _, p := range list(t, module+"/...") {
		path := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, imported := range p.Imports {
			if in(module+"/internal/host/dev", imported) && path != "cmd/ehsm" && path != "client/ehsmtest" && !in("internal/host/dev", path) {
				t.Errorf("%s imports %s", path, imported)
			}
		}
	}
}

func deps(t *testing.T, target, tags string) (standard, ours, others []string) {
	t.Helper()
	return depsOf(t, tags, target)
}

func depsOf(t *testing.T, tags string, targets ...string) (standard, ours, others []string) {
	t.Helper()
	for _, p := range list(t, append([]string{"-tags=" + tags, "-deps"}, targets...)...) {
		switch {
		case p.Standard:
			standard = append(standard, p.ImportPath)
		case in(module, p.ImportPath):
			ours = append(ours, p.ImportPath)
		default:
			others = append(others, p.ImportPath)
		}
	}
	slices.Sort(others)
	slices.Sort(ours)
	return standard, ours, others
}

// TestTrustedDependencies compares everything that enters the TEE, beyond the
// standard library, with the reviewed list of each build tag. Update them with
// UPDATE_TRUSTED_DEPS=1 and say in the commit why the change is worth reviewing.
func TestTrustedDependencies(t *testing.T) {
	for _, set := range tagSets {
		_, ours, others := depsOf(t, set.tags, teePrograms...)
		got := strings.Join(append(ours, others...), "\n") + "\n"
		if os.Getenv("UPDATE_TRUSTED_DEPS") != "" {
			if err := os.WriteFile(set.file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(set.file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("what the TEE programs link with tags %q differs from %s; got:\n%s", set.tags, filepath.Base(set.file), got)
		}
	}
}

// tagLinks is what a build tag brings that no other program in a TEE links, and that
// is never called: EGo's package has the client of a quote service, and the verifiers
// of guests have fetchers of collateral, in whose place they are given one that
// refuses.
var tagLinks = map[string][]string{"ego": {"net/http"}, "tsm": {"net/http"}}

func TestTEEProgramsLinkNoServerAndNoDatabase(t *testing.T) {
	for _, set := range tagSets {
		standard, ours, others := depsOf(t, set.tags, teePrograms...)
		for _, p := range slices.Concat(standard, ours, others) {
			if slices.Contains(tagLinks[set.tags], p) {
				continue
			}
			if p == "net/http" || p == "database/sql" || strings.Contains(p, "sqlite") || strings.Contains(p, "pgx") || in(module+"/internal/host", p) {
				t.Errorf("a TEE program with tags %q links %s", set.tags, p)
			}
		}
	}
}

// TestDefaultProgramsArePureGo keeps cgo out of the programs that run under Gramine.
func TestDefaultProgramsArePureGo(t *testing.T) {
	_, ours, others := depsOf(t, "", teePrograms...)
	for _, p := range list(t, slices.Concat(ours, others)...) {
		if slices.Contains(p.Imports, "C") || slices.Contains(p.Imports, "runtime/cgo") {
			t.Errorf("a TEE program uses cgo in %s", p.ImportPath)
		}
	}
}

func TestManagerLinksNothingTrusted(t *testing.T) {
	_, ours, _ := deps(t, module+"/cmd/ehsm-kms", "")
	if len(ours) == 0 {
		t.Error("ehsm-kms has no dependencies")
	}
	for _, p := range ours {
		if in(module+"/internal/trusted", p) {
			t.Errorf("ehsm-kms links %s", p)
		}
	}
}

// TestOnlyTheSidecarTalksToHSMs keeps PKCS#11 libraries, which are C, out of all
// other programs, and everything trusted out of the sidecar.
func TestOnlyTheSidecarTalksToHSMs(t *testing.T) {
	const library = "github.com/miekg/pkcs11"
	for _, p := range list(t, "-tags=pkcs11", "-deps", module+"/cmd/...") {
		path := strings.TrimPrefix(p.ImportPath, module+"/")
		if slices.Contains(p.Imports, library) && path != "internal/host/hsm" {
			t.Errorf("%s imports %s", path, library)
		}
		if slices.Contains(p.Imports, module+"/internal/host/hsm") && path != "cmd/ehsm-hsm" {
			t.Errorf("%s imports internal/host/hsm", path)
		}
	}
	_, ours, others := deps(t, module+"/cmd/ehsm-hsm", "pkcs11")
	if !slices.Contains(others, library) {
		t.Errorf("ehsm-hsm links %v only: is this test up to date?", others)
	}
	for _, p := range ours {
		if in(module+"/internal/trusted", p) {
			t.Errorf("ehsm-hsm links %s", p)
		}
	}
	if _, _, others := deps(t, module+"/cmd/ehsm-hsm", ""); slices.Contains(others, library) {
		t.Errorf("ehsm-hsm links %s without its tag", library)
	}
}

// TestOnlyClientsVerifyGuests keeps the verifiers of TDX and SEV-SNP, and what they
// link, to the CLI, to the package for which programs ask by importing it, and to
// TEE programs with the build tag tsm.
func TestOnlyClientsVerifyGuests(t *testing.T) {
	guests := []string{module + "/internal/attest/tdx", module + "/internal/attest/snp", "github.com/google/go-tdx-guest/verify", "github.com/google/go-sev-guest/verify"}
	linked := func(target string) (found []string) {
		_, ours, others := deps(t, target, "")
		for _, g := range guests {
			if slices.Contains(ours, g) || slices.Contains(others, g) {
				found = append(found, g)
			}
		}
		return found
	}
	for _, target := range []string{"/cmd/ehsm-core", "/cmd/ehsm-dkeycache", "/cmd/ehsm-dkeyserver", "/cmd/ehsm-kms", "/client/ehsm"} {
		if found := linked(module + target); len(found) > 0 {
			t.Errorf("%s links %v", target, found)
		}
	}
	if found := linked(module + "/client/ehsm/attested"); len(found) != len(guests) {
		t.Errorf("client/ehsm/attested links %v only: is this test up to date?", found)
	}
}

func TestPublicTypesUseOnlyTheStandardLibrary(t *testing.T) {
	if _, _, others := deps(t, module+"/api/...", ""); len(others) > 0 {
		t.Errorf("api links %v", others)
	}
}
