package provision

import (
	"context"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
)

// Heads is what a program says and hears about the log of negative facts: a
// facts.Reader in a core, a facts.Anchor elsewhere.
type Heads interface {
	// Say is what to tell who has told heads.
	Say(told facts.Statement) facts.Statement
	// Hear takes a statement. It binds if it is of a dkeyserver, or of the dkeycache
	// of a core. Errors: facts.ErrFork, facts.ErrPast, and those of the disk.
	Hear(s facts.Statement, binds bool) error
	// Changed returns a channel that is closed when there is something new to say.
	Changed() <-chan struct{}
}

const (
	// headPause is the least time between two heartbeats for a log that grows.
	headPause = 20 * time.Millisecond
	// maxHeadTurns is how often heads are exchanged in one heartbeat: what is heard
	// may lead to something new to say.
	maxHeadTurns = 4
)

// tellHeads exchanges heads with the server.
func (s *session) tellHeads(ctx context.Context) error {
	if s.Heads == nil {
		return nil
	}
	for range maxHeadTurns {
		said := s.Heads.Say(s.told)
		m, err := s.ask(ctx, message{kind: tellHeads, heads: said})
		if err != nil {
			return err
		}
		if m.kind != heads { // check: answer-heads
			return fmt.Errorf("%w: kind %d, want heads", ErrMessage, m.kind)
		}
		s.told = m.heads
		s.troubled(s.Heads.Hear(m.heads, true))
		if s.Heads.Say(s.told).Equal(said) {
			break
		}
	}
	return nil
}

// troubled logs an error about the log, but not again and again.
func (s *session) troubled(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != s.trouble && err != nil {
		s.Log.Error("log of negative facts", "why", text)
	}
	s.trouble = text
}

// headsChanged returns a channel that is closed when there is something new to say
// about the log.
func (c *Client) headsChanged() <-chan struct{} {
	if c.Heads == nil {
		return nil
	}
	return c.Heads.Changed()
}

// hearHeads answers tellHeads.
func (s *Server) hearHeads(p channel.Peer, said facts.Statement) (message, error) {
	if s.Heads == nil { // check: heads-unknown
		return message{}, fmt.Errorf("%w: heads are not known here", ErrMessage)
	}
	if err := s.Heads.Hear(said, p.Role == channel.DKeyServer); err != nil {
		s.Log.Error("log of negative facts", "of", p.Role, "platform", platformName(p), "why", err.Error())
	}
	return message{kind: heads, heads: s.Heads.Say(said)}, nil
}
