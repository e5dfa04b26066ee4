package manifest

import (
	"errors"
	"fmt"
)

// Limits bound what one app may have and ask for, so that it does not take what
// others need. Zero members bound nothing.
type Limits struct {
	// RequestsPerSecond is how many authentic requests of an app each core serves in
	// the long run.
	RequestsPerSecond int `json:"requestsPerSecond,omitempty"`
	// Burst is how many it serves at once after a pause; only with RequestsPerSecond,
	// which it is then at least one of.
	Burst int `json:"burst,omitempty"`
	// Keys and Secrets are how many an app may have, those to be deleted included, for
	// another one to be made.
	Keys    int `json:"keys,omitempty"`
	Secrets int `json:"secrets,omitempty"`
}

// Highest limits. Those of keys and secrets are what one listing has.
const (
	maxRate    = 1_000_000
	maxKeys    = 10000
	maxSecrets = 4000
)

// generous are the limits of a new domain for production.
func generous() Limits {
	return Limits{RequestsPerSecond: 2000, Burst: 4000, Keys: maxKeys, Secrets: maxSecrets}
}

func (l *Limits) validate() error {
	for _, n := range []struct {
		name           string
		value, highest int
	}{
		{"requestsPerSecond", l.RequestsPerSecond, maxRate}, {"burst", l.Burst, maxRate},
		{"keys", l.Keys, maxKeys}, {"secrets", l.Secrets, maxSecrets},
	} {
		if n.value < 0 || n.value > n.highest {
			return fmt.Errorf("limits: %s is %d, want 0 (none) to %d", n.name, n.value, n.highest)
		}
	}
	if (l.RequestsPerSecond == 0) != (l.Burst == 0) {
		return errors.New("limits: requestsPerSecond and burst go together")
	}
	return nil
}
