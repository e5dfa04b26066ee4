package collateral

import (
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// SetTimeout replaces the time for one request.
func (s *Service) SetTimeout(d time.Duration) { s.timeout = d }

// Forms for fuzzing.
var (
	DecodeChainHeader = decodeChainHeader
	DecodeCRL         = decodeCRL
)

// Limits that tests reach.
const (
	BudgetBurst = budgetBurst
	MaxHeld     = maxHeld
	MaxFailures = maxFailures
	UnknownFor  = unknownFor
	FailureFor  = failureFor
)

// Held is how many kinds of platforms are in memory.
func (f *Fetcher) Held() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.slots)
}

// Failures is how many failures are remembered.
func (f *Fetcher) Failures() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.failures)
}

// Save keeps collateral in a directory of at most max files.
func Save(dir string, max int, q Query, c verify.Collateral, fetched time.Time) error {
	d, err := openDisk(dir, max)
	if err != nil {
		return err
	}
	return d.save(q, c, fetched)
}
