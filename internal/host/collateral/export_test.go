package collateral

import "time"

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
