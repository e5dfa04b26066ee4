package acceptance

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// localReport has the platform vouch for this program to itself, and refuse the
// report once any of its bytes has changed.
func (r *run) localReport(context.Context) (string, error) {
	l, ok := r.Platform.(tee.LocalReporter)
	if !ok {
		return "", errNone
	}
	target, err := l.Target()
	if err != nil {
		return "", err
	}
	var data [64]byte
	rand.Read(data[:]) // never fails
	report, err := l.Report(target, data)
	if err != nil {
		return "", err
	}
	id, got, err := l.VerifyReport(report)
	switch {
	case err != nil:
		return "", fmt.Errorf("verify a report of this program: %w", err)
	case id != r.Platform.Identity():
		return "", errors.New("the report names another program")
	case got != data:
		return "", errors.New("the report binds other data")
	}
	for i := range report {
		report[i] ^= 1
		if _, _, err := l.VerifyReport(report); err == nil {
			return "", fmt.Errorf("a report with another byte %d is accepted", i)
		}
		report[i] ^= 1
	}
	return fmt.Sprintf("a report of %d bytes holds, and with any byte changed it does not", len(report)), nil
}

// clock reads the clock many times. It comes from the host: that it runs, and not
// backwards, is all that can be seen from here.
func (r *run) clock(context.Context) (string, error) {
	const readings = 10_000
	start := r.Now()
	before := start
	for range readings {
		now := r.Now()
		if now.Sub(before) < 0 || now.UnixNano() < before.UnixNano() {
			return "", fmt.Errorf("it went back by %v", before.Round(0).Sub(now.Round(0)))
		}
		before = now
	}
	if before.Equal(start) {
		return "", fmt.Errorf("it stood still for %d readings", readings)
	}
	return fmt.Sprintf("%d readings in order, %v each", readings, before.Sub(start)/readings), nil
}

// memory fills and reads back as much as was asked for, a page at a time.
func (r *run) memory(context.Context) (string, error) {
	const page = 4096
	start := r.Now()
	b := make([]byte, r.request.Memory<<20)
	for i := 0; i < len(b); i += page {
		binary.LittleEndian.PutUint64(b[i:], uint64(i)+1)
	}
	filled := r.Now()
	for i := 0; i < len(b); i += page {
		if got := binary.LittleEndian.Uint64(b[i:]); got != uint64(i)+1 {
			return "", fmt.Errorf("page %d of %d does not hold what was written", i/page, len(b)/page)
		}
	}
	return fmt.Sprintf("%d MiB filled in %v, read in %v", r.request.Memory,
		filled.Sub(start).Round(time.Millisecond), r.Now().Sub(filled).Round(time.Millisecond)), nil
}
