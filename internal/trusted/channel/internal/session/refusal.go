package session

import (
	"errors"
	"fmt"
)

// A Refusal is what the peer said when it refused. It comes from a peer that has
// not proved anything yet, so it helps people and decides nothing. It is an
// ErrRefused.
type Refusal struct{ Reason Reason }

// Error implements error.
func (r *Refusal) Error() string { return fmt.Sprintf("%v: %v", ErrRefused, r.Reason) }

// Unwrap returns ErrRefused.
func (r *Refusal) Unwrap() error { return ErrRefused }

// A Reason says why a handshake or channel was refused, no closer than a stranger
// may know. Numbers are transmitted and never change.
type Reason uint8

// The reasons.
const (
	_              Reason = iota
	ReasonProtocol        // a message was malformed or not expected
	ReasonPeer            // domain or role is not the wanted one
	ReasonEvidence        // evidence is not genuine or not wanted
	ReasonBusy            // it took too long, or there were too many
	ReasonOther           // a failure of the peer's own
)

// String says the reason for people.
func (r Reason) String() string {
	switch r {
	case ReasonProtocol:
		return "a message was malformed or not expected"
	case ReasonPeer:
		return "domain or role is not the wanted one"
	case ReasonEvidence:
		return "evidence is not genuine or not wanted"
	case ReasonBusy:
		return "it took too long, or there were too many at once"
	case ReasonOther:
		return "the peer has failed"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// reasonOf is what a peer is told of an error.
func reasonOf(err error) Reason {
	for _, row := range []struct {
		err    error
		reason Reason
	}{
		{ErrTimeout, ReasonBusy}, {ErrCrowded, ReasonBusy}, {ErrPeer, ReasonPeer},
		{ErrEvidence, ReasonEvidence}, {ErrChanged, ReasonEvidence}, {ErrExpired, ReasonEvidence},
		{ErrProtocol, ReasonProtocol}, {ErrReflected, ReasonProtocol}, {ErrVerdict, ReasonProtocol},
	} {
		if errors.Is(err, row.err) {
			return row.reason
		}
	}
	return ReasonOther
}

// refusal reads the message of a peer that refuses.
func refusal(payload []byte) error {
	if len(payload) != 1 || payload[0] == 0 || Reason(payload[0]) > ReasonOther { // check: refusal-format
		return fmt.Errorf("%w: %v of %d bytes", ErrProtocol, refused, len(payload))
	}
	return &Refusal{Reason(payload[0])}
}
