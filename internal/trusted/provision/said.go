package provision

import (
	"regexp"
	"sync"
	"time"
)

const (
	// sayAgain is after how long a state that lasts is worth another line.
	sayAgain = time.Hour
	// maxSaid is how many others are remembered.
	maxSaid = 4096
)

// ownPort is what differs in the text of an error with each connection.
var ownPort = regexp.MustCompile(`:\d+->`)

// A said keeps a log to one line for each change of state, not for each try. The
// zero value is usable, and safe for concurrent use.
type said struct {
	mu   sync.Mutex
	last map[string]saying
}

type saying struct {
	text string
	at   time.Time
}

// news reports whether a text about somebody differs from the last one, or is worth
// saying again.
func (s *said) news(who, text string) bool {
	text = ownPort.ReplaceAllString(text, "->")
	s.mu.Lock()
	defer s.mu.Unlock()
	before, now := s.last[who], time.Now()
	if before.text == text && now.Sub(before.at) < sayAgain {
		return false
	}
	if s.last == nil || len(s.last) >= maxSaid {
		s.last = map[string]saying{}
	}
	s.last[who] = saying{text, now}
	return true
}

// forget has the next text about somebody be news.
func (s *said) forget(who string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.last, who)
}
