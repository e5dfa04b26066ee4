// Package mutants tests tests: it removes the marked security checks of a package
// one at a time and expects something to fail. A mark stands behind a condition:
//
//	if err != nil { // check: NAME            without it a test must fail
//	if err != nil { // check+: NAME: REASON   another check stands behind it
//
// Test files with the build tag mutants call Run; `make mutants` runs them.
package mutants

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// limit is for how long a test may run with a mutant, which may make it hang.
const limit = 5 * time.Minute

// Options say what is mutated. Folders are relative to the calling test's.
type Options struct {
	// Folders are those of the packages whose checks are removed.
	Folders []string
	// Tests are those of the packages whose tests must notice. Default: Folders.
	Tests []string
	// First is the name of a test that is tried before the others, which are tried
	// fastest first. It may be empty.
	First string
	// Tags are the build tags, which decide what is mutated.
	Tags string
	// Least is how many checks there are at least, so that none are lost.
	Least int
}

// Run removes the checks one at a time. All mutants of a package are in one binary,
// which is built from altered copies of the sources; a variable of the environment
// picks one. A first run of each test, without a mutant, tells which checks refuse
// something in it: only those tests can miss them.
func Run(t *testing.T, o Options) {
	if o.Tests == nil {
		o.Tests = o.Folders
	}
	binaries, checks := build(t, t.TempDir(), o)
	tests := survey(t, binaries, o.First)
	if t.Failed() {
		return
	}
	t.Run("removed", func(t *testing.T) {
		for _, c := range checks {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				killer := kill(t, c.name, tests)
				switch {
				case killer == "" && !c.spare:
					t.Errorf("%s: nothing fails without this check: write the attack, or say why it is spare", c.where)
				case killer != "" && c.spare:
					t.Errorf("%s: it is not spare, %s fails without it", c.where, killer)
				case killer != "":
					t.Logf("found by %s", killer)
				}
			})
		}
	})
}

// A surveyed test is one that passes without a mutant.
type surveyed struct {
	binary // of its package
	name   string
	took   time.Duration
	fired  map[string]bool // checks that refused something
}

// survey runs each test once, and orders them as they are to be tried.
func survey(t *testing.T, binaries []binary, first string) []surveyed {
	var tests []surveyed
	for _, b := range binaries {
		out, err := exec.Command(b.file, "-test.list", "^(Test|Fuzz)").Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range strings.Fields(string(out)) {
			tests = append(tests, surveyed{binary: b, name: name, fired: map[string]bool{}})
		}
	}
	t.Run("unaltered", func(t *testing.T) {
		for i := range tests {
			t.Run(tests[i].name, func(t *testing.T) {
				t.Parallel()
				tests[i].trace(t)
			})
		}
	})
	rank := func(s surveyed) time.Duration {
		if s.name == first {
			return 0
		}
		return s.took
	}
	slices.SortStableFunc(tests, func(a, b surveyed) int { return cmp.Compare(rank(a), rank(b)) })
	return tests
}

// trace runs the test without a mutant.
func (s *surveyed) trace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "trace")
	began := time.Now()
	if out, err := s.run(t, "", file); err != nil {
		t.Fatalf("without a mutant: %v\n%s", err, out)
	}
	s.took = time.Since(began)
	b, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, check := range strings.Fields(string(b)) {
		s.fired[check] = true
	}
}

// run runs the test with a mutant, and has it write into a file which checks
// refused something; either may be empty.
func (s *surveyed) run(t *testing.T, mutant, trace string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(t.Context(), limit+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.file, "-test.run", "^"+s.name+"$", "-test.failfast", "-test.timeout", limit.String())
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "EHSM_MUTANT="+mutant, "EHSM_TRACE="+trace)
	return cmd.CombinedOutput()
}

// kill returns the test that fails without a check, "" if none does.
func kill(t *testing.T, check string, tests []surveyed) string {
	for i := range tests {
		test := &tests[i]
		if !test.fired[check] {
			continue
		}
		out, err := test.run(t, check, "")
		if err == nil {
			continue
		}
		for line := range strings.Lines(string(out)) {
			if failed, ok := strings.CutPrefix(strings.TrimSpace(line), "--- FAIL: "+test.name+"/"); ok {
				return test.name + ": " + strings.TrimSpace(failed)
			}
		}
		return test.name
	}
	return ""
}
