package sim

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

func TestReportsAreBound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sim")
	maker, target := open(t, dir, 1, 2), open(t, dir, 1, 2)
	toTarget, err := target.Target()
	if err != nil {
		t.Fatal(err)
	}
	data := [64]byte{1, 63: 2}
	report, err := maker.Report(toTarget, data)
	if err != nil {
		t.Fatal(err)
	}
	if id, got, err := target.VerifyReport(report); err != nil || id != maker.Identity() || got != data {
		t.Fatalf("VerifyReport: got %+v, %x, %v", id, got, err)
	}
	for i := range report {
		for _, bit := range []byte{1, 0x80} {
			changed := bytes.Clone(report)
			changed[i] ^= bit
			refuses(t, fmt.Sprintf("byte %d changed", i), target, changed)
		}
	}
	refuses(t, "nothing", target, nil)
	refuses(t, "one byte less", target, report[:len(report)-1])
	refuses(t, "one byte more", target, append(bytes.Clone(report), 0))

	other := *target
	other.id.Measurement[0] ^= 1
	refuses(t, "another program", &other, report)
	debug := *target
	debug.id.Debug = true
	refuses(t, "the target is in debug mode", &debug, report)
	refuses(t, "another machine", open(t, filepath.Join(t.TempDir(), "sim"), 1, 2), report)

	again, err := maker.Report(toTarget, data)
	if err != nil || bytes.Equal(again, report) {
		t.Errorf("Report: two reports have one KEYID, %v", err)
	}
}

func refuses(t *testing.T, name string, m *Machine, report []byte) {
	t.Helper()
	if id, data, err := m.VerifyReport(report); !errors.Is(err, tee.ErrEvidence) || id != (tee.Identity{}) || data != [64]byte{} {
		t.Errorf("VerifyReport: %s: got %+v, %x, %v, want ErrEvidence", name, id, data, err)
	}
}

func TestReportRefusesTargets(t *testing.T) {
	m := open(t, filepath.Join(t.TempDir(), "sim"), 1, 2)
	target, err := m.Target()
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"nothing":       nil,
		"short":         target[:targetSize-1],
		"long":          append(bytes.Clone(target), 0),
		"reserved byte": append(bytes.Clone(target[:targetUsed]), bytes.Repeat([]byte{1}, targetSize-targetUsed)...),
		"last byte":     append(bytes.Clone(target[:targetSize-1]), 1),
	} {
		if _, err := m.Report(bad, [64]byte{}); !errors.Is(err, tee.ErrEvidence) {
			t.Errorf("%s: got %v, want ErrEvidence", name, err)
		}
	}
}
