package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

// An audited request is what the trail says about a change.
type audited struct{ tenant, action, key string }

// trail reads the spool files of a target that has ended: the changes that were
// recorded as done, and how many entries there are.
func (g *target) trail(t *testing.T) (done map[audited]int, entries int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(g.audit, "*.trail"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the trail has %d files, %v", len(files), err)
	}
	type place struct {
		instance [16]byte
		sequence uint64
	}
	requests := map[place]trail.Entry{}
	for _, name := range files {
		for _, e := range readTrail(t, name) {
			entries++
			switch e.Kind {
			case trail.Request:
				requests[place{e.Instance, e.Sequence}] = e
			case trail.Aborted:
				delete(requests, place{e.Instance, e.Of})
			}
		}
	}
	done = map[audited]int{}
	for _, e := range requests {
		if e.Code == 200 {
			done[audited{e.Tenant.String(), e.Action, e.Key.String()}]++
		}
	}
	return done, entries
}

// readTrail reads one file up to its end or to where a crash tore it.
func readTrail(t *testing.T, name string) (entries []trail.Entry) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, buf := bufio.NewReader(f), make([]byte, trail.MaxFrame)
	for {
		frame, err := trail.ReadFrame(r, buf)
		if errors.Is(err, io.EOF) || errors.Is(err, trail.ErrTorn) || errors.Is(err, trail.ErrUnused) {
			return entries
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		e, err := trail.Parse(frame.Entry)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		entries = append(entries, e)
	}
}

// verifyTrail has the program for auditors look at the trail. A core that goes
// on while its manager is killed has handed out entries that are lost: gaps is
// how often that was. Ends torn by a crash are all right; nothing else is.
func (g *target) verifyTrail(t *testing.T, gaps int) {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, partDev), "audit", "verify", "--output", "json",
		"--genesis", g.data("domain", "genesis.json"), g.audit)
	cmd.Env, cmd.Stderr = g.environ(), &stderr
	out, err := cmd.Output()
	var report struct {
		Intact    bool
		Unplaced  []string
		Instances []struct{ Gaps, Findings []string }
	}
	if err := json.Unmarshal(out, &report); err != nil || len(report.Instances) == 0 {
		t.Fatalf("ehsm audit verify: %v: %s%s", err, out, &stderr)
	}
	bad, found := report.Unplaced, 0
	for _, i := range report.Instances {
		found += len(i.Gaps)
		bad = append(bad, i.Findings...)
	}
	bad = slices.DeleteFunc(bad, func(finding string) bool { return strings.Contains(finding, ": torn: ") })
	if len(bad) > 0 || found > gaps {
		t.Errorf("ehsm audit verify: %d gaps, want %d at most; findings: %q", found, gaps, bad)
	}
	if intact := found == 0 && len(bad) == 0; intact != (err == nil) || intact != report.Intact {
		t.Errorf("ehsm audit verify says intact: %v, and ends with %v\n%s", report.Intact, err, &stderr)
	}
}
