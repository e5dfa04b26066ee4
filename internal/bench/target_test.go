package bench

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTargets(t *testing.T) {
	row := func(name string, ratio, cpu float64, primitives ...float64) Row {
		r := Row{Operation: name, Size: 32, Conns: 16}
		for _, p := range primitives {
			r.Rounds = append(r.Rounds, Round{CPU: cpu, Ratio: ratio, PrimitiveCPU: p})
		}
		r.finish()
		r.CPU, r.Ratio = cpu, ratio
		return r
	}
	other := row("decrypt", 1, 25)
	other.Conns = 1
	for name, c := range map[string]struct {
		rows []Row
		want []string
	}{
		"nothing":            {nil, nil},
		"no target":          {[]Row{row("encrypt", 1.5, 33)}, nil},
		"no decryption":      {[]Row{row("getsecret", 2, 50), other}, nil},
		"secret met":         {[]Row{row("decrypt", 1.4, 33), row("getsecret", 2.09, 50)}, []string{"target met: getsecret, 32 bytes, 16 connections: 1.49 times decrypt"}},
		"secret missed":      {[]Row{row("getsecret", 2.2, 50), row("decrypt", 1.4, 33)}, []string{"target missed: getsecret, 32 bytes, 16 connections: 1.57 times decrypt"}},
		"above met":          {[]Row{row("sign-p256", 3, 70, 29, 31, 35)}, []string{"target met: sign-p256, 32 bytes, 16 connections: primitive 31.0 us, 39.0 above it"}},
		"above missed":       {[]Row{row("sign-p256", 3, 72, 31)}, []string{"target missed: sign-p256, 32 bytes, 16 connections: primitive 31.0 us, 41.0 above it"}},
		"batch met":          {[]Row{row("batchencrypt", 10, 400)}, []string{"target met: batchencrypt, 32 bytes, 16 connections: 4.00 us of CPU for each of 100 items, want at most 4"}},
		"batch missed":       {[]Row{row("batchencrypt", 10, 401)}, []string{"target missed: batchencrypt, 32 bytes, 16 connections: 4.01 us"}},
		"CPU is not known":   {[]Row{row("sign-p256", 0, 0, 31)}, nil},
		"ceiling is unknown": {[]Row{row("decrypt", 0, 33), row("getsecret", 0, 50)}, nil},
	} {
		got := (&Report{Rows: c.rows}).targets()
		if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestTargetOperationsExist(t *testing.T) {
	for _, name := range TargetOperations() {
		if _, err := findOperation(name); err != nil {
			t.Error(err)
		}
	}
}

// The primitives work, and one call is counted as one.
func TestPrimitives(t *testing.T) {
	for _, op := range operations() {
		if op.primitive == nil {
			continue
		}
		once, err := op.primitive(300)
		if err != nil {
			t.Errorf("%s: %v", op.name, err)
			continue
		}
		if cpu, err := primitiveCPU(once, limit{duration: time.Minute, count: 3}); err != nil || cpu <= 0 {
			t.Errorf("%s: got %v us, %v", op.name, cpu, err)
		}
	}
}
