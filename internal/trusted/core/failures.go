package core

import (
	"sync"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	// maxPKCS1Failures is how many failed decryptions under PKCS#1 v1.5 the
	// owner of a key gets to see in a minute. Each tells whether a padding was
	// good, and with 10^4 or more of them a stranger's ciphertext can be opened
	// (Bleichenbacher, CRYPTO '98).
	maxPKCS1Failures = 100
	minuteMicros     = 60_000_000
)

// failures counts the failed decryptions of each key in the current minute of
// the TEE's time.
type failures struct {
	limit int // keys

	mu     sync.Mutex
	minute int64
	counts map[wire.RecordID]int
}

func newFailures(limit int) *failures {
	return &failures{limit: limit, counts: make(map[wire.RecordID]int)}
}

// settle counts a failure, if it is one, and reports whether its outcome may be
// told. It is to be asked for successes too: above the limit they must look like
// failures. Where the table is full, nothing of further keys is told. now is in
// Unix microseconds.
func (f *failures) settle(key wire.RecordID, now int64, failed bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := now / minuteMicros; m > f.minute {
		f.minute = m
		clear(f.counts)
	}
	n, known := f.counts[key]
	if n >= maxPKCS1Failures || !known && len(f.counts) >= f.limit {
		return false
	}
	if failed {
		f.counts[key] = n + 1
	}
	return true
}
