package core

import (
	"context"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Rewrap implements wire.Rewrapper. No signature is needed, as it changes nothing
// but the key that encrypts a record: attributes, material, revision and the tag of
// the state stay, and with them what every core knows of the record. What is behind
// the state that a core has seen is no less behind it afterwards.
func (c *Core) Rewrap(_ context.Context, w *wire.Rewrap) (*wire.Answer, error) {
	if len(w.Records) > wire.RewrapStep {
		return nil, fmt.Errorf("rewrap: %w", ErrLimit)
	}
	x := &request{
		core: c, now: c.clock.micros(), keyVersion: w.Version,
		call:   &wire.Call{RequestID: w.RequestID, Action: "Rewrap"},
		action: &action{name: "Rewrap", mutates: true},
	}
	if err := c.reach(w.Version, x.now); err != nil {
		return asNeed(err).answer(), nil
	}
	if w.Version != c.keys.Current() { // check: rewrap-current
		return x.finish(result{}, errInternal("rewrap to another version than the current one")), nil
	}
	var refused error
	named := make(map[wire.RecordID]bool, len(w.Records))
	for i := range w.Records {
		err := x.rewrap(&w.Records[i], named)
		if need := asNeed(err); need != nil {
			return need.answer(), nil
		}
		if err != nil {
			refused = errInternal("records refused")
		}
	}
	switch {
	case x.pends():
		return x.suspend(result{message: textSuccessful}, refused), nil
	case refused != nil:
		return x.finish(result{}, refused), nil
	}
	return &wire.Answer{Kind: wire.Final, Code: codeOK}, nil
}

var errRewrap = errors.New("record is not to be wrapped anew")

// rewrap adds one record to the writes, if it is due.
func (x *request) rewrap(ref *wire.Ref, named map[wire.RecordID]bool) error {
	if named[ref.ID] { // check: rewrap-twice
		return errRewrap
	}
	named[ref.ID] = true
	if x.core.seen.judge(ref.ID, ref.Revision, wire.SealedTag(ref.Sealed)) != newest { // check: rewrap-seen
		return errRewrap
	}
	sealed, err := record.Rewrap(x.core.keys, record.Header{ID: ref.ID, Revision: ref.Revision}, ref.Sealed)
	if errors.Is(err, record.ErrNotDue) {
		return nil
	}
	if err != nil {
		return x.core.unopened(ref.Sealed, err)
	}
	x.writes = append(x.writes, wire.Write{ID: ref.ID, Expected: ref.Revision, Revision: ref.Revision, Rewrapped: true, Sealed: sealed})
	return nil
}
