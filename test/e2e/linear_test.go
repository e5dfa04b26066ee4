package e2e

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// What an operation on keys was told.
const (
	sawDone     = "done"
	sawDisabled = "disabled"
	sawGone     = "gone"
	sawNothing  = "nothing" // an error or no reply: it may have happened, or happen later
)

// A keyOp is one operation of a client on the keys of a tenant.
type keyOp struct {
	action string // as in the contract, and "use"
	key    string
}

// A keySaw is what came of it.
type keySaw struct {
	what string
	list map[string]bool // of ListKey: whether each listed key is enabled
}

// A history is what clients did with one tenant, in any order.
type history struct {
	ops     []porcupine.Operation
	creates int // of unknown outcome: keys that a list may show and nobody knows
}

// add notes an operation that was under way from call to back.
func (h *history) add(op keyOp, saw keySaw, call, back time.Duration) {
	o := porcupine.Operation{Input: op, Output: saw, Call: int64(call), Return: int64(back)}
	if saw.what == sawNothing {
		switch op.action {
		case "use", "ListKey":
			return // it changed nothing and says nothing
		case "CreateKey":
			h.creates++
			return
		}
		o.Return = math.MaxInt64
	}
	h.ops = append(h.ops, o)
}

// check reports whether there is an order of the operations, each at some time
// while it was under way, in which their replies are right. A use may see a state
// as old as grace: it is one that may have been under way for that long before.
//
// It looks at all changes and lists of the tenant together, and then at those of
// one key with each of its uses. Uses are under way for so long that all at once
// would take too many tries to refuse.
func (h *history) check(grace time.Duration) (porcupine.CheckResult, error) {
	keys := h.keys()
	var together []porcupine.Operation
	single, uses := make([][]porcupine.Operation, len(keys)), make([][]porcupine.Operation, len(keys))
	for _, o := range h.ops {
		op, saw := o.Input.(keyOp), o.Output.(keySaw)
		k, ok := keys[op.key]
		if !ok && op.key != "" {
			return porcupine.Illegal, fmt.Errorf("%s of key %s, which nobody was given", op.action, op.key)
		}
		list, err := h.letters(keys, saw.list)
		if err != nil {
			return porcupine.Illegal, err
		}
		o.Output = nil
		if op.action == "use" {
			o.Call -= int64(grace)
			o.Input = keyStep{op.action, 0, saw.what, ""}
			uses[k] = append(uses[k], o)
			continue
		}
		o.Input = keyStep{op.action, k, saw.what, list}
		together = append(together, o)
		for i := range single {
			if op.key == "" || i == k {
				o.Input = keyStep{op.action, 0, saw.what, list[i : i+1]}
				single[i] = append(single[i], o)
			}
		}
	}
	got := porcupine.CheckOperationsTimeout(keyModel(len(keys)), together, time.Minute)
	for i := range single {
		for _, use := range uses[i] {
			if got == porcupine.Ok {
				got = porcupine.CheckOperationsTimeout(keyModel(1), append(slices.Clip(single[i]), use), time.Minute)
			}
		}
	}
	return got, nil
}

// keys numbers the keys that clients were given.
func (h *history) keys() map[string]int {
	keys := map[string]int{}
	for _, o := range h.ops {
		if op := o.Input.(keyOp); op.action == "CreateKey" {
			keys[op.key] = len(keys)
		}
	}
	return keys
}

// letters is a list in the words of the model.
func (h *history) letters(keys map[string]int, list map[string]bool) (string, error) {
	text, unknown := []byte(strings.Repeat("-", len(keys))), 0
	for key, enabled := range list {
		k, ok := keys[key]
		switch {
		case !ok:
			unknown++
		case enabled:
			text[k] = 'E'
		default:
			text[k] = 'D'
		}
	}
	if unknown > h.creates {
		return "", fmt.Errorf("%d keys are listed that nobody made, want %d at most", unknown, h.creates)
	}
	return string(text), nil
}

// A keyStep is an operation with its outcome, in the words of the model.
type keyStep struct {
	action string
	key    int
	saw    string
	list   string // a letter for each key; '-' is not listed
}

// keyModel is the contract of key states. A state has a letter for each key:
// '-' not made yet, 'E' enabled, 'D' disabled, 'G' gone.
func keyModel(keys int) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return strings.Repeat("-", keys) },
		Step: func(state, input, _ any) (bool, any) { return input.(keyStep).apply(state.(string)) },
	}
}

func (s keyStep) apply(state string) (legal bool, next string) {
	switch s.action {
	case "ListKey":
		return strings.ReplaceAll(state, "G", "-") == s.list, state
	case "DeleteAllKey":
		return true, strings.Map(func(k rune) rune {
			if k == '-' {
				return k
			}
			return 'G'
		}, state)
	}
	now := state[s.key]
	set := func(to byte) string { return state[:s.key] + string(to) + state[s.key+1:] }
	exists := now == 'E' || now == 'D'
	switch s.action {
	case "use":
		return now == map[string]byte{sawDone: 'E', sawDisabled: 'D', sawGone: 'G'}[s.saw], state
	case "CreateKey":
		return now == '-', set('E')
	case "DeleteKey":
		return now != '-', set('G')
	}
	to := map[string]byte{"EnableKey": 'E', "DisableKey": 'D'}[s.action]
	switch {
	case s.saw == sawGone:
		return now == 'G', state
	case !exists:
		return s.saw == sawNothing, state
	}
	return true, set(to)
}

// TestHistories has the checker judge histories that are known to be good or bad.
func TestHistories(t *testing.T) {
	type event struct {
		op         keyOp
		saw        keySaw
		call, back int // ms
	}
	done := keySaw{what: sawDone}
	made := event{keyOp{"CreateKey", "k"}, done, 0, 10}
	disabled := event{keyOp{"DisableKey", "k"}, done, 20, 30}
	deletedAll := event{keyOp{action: "DeleteAllKey"}, done, 20, 30}
	use := func(saw string, call, back int) event { return event{keyOp{"use", "k"}, keySaw{what: saw}, call, back} }
	list := func(call, back int, keys map[string]bool) event {
		return event{keyOp{action: "ListKey"}, keySaw{sawDone, keys}, call, back}
	}
	change := func(action, saw string, call, back int) event {
		return event{keyOp{action, "k"}, keySaw{what: saw}, call, back}
	}
	for name, tt := range map[string]struct {
		events []event
		grace  time.Duration
		want   porcupine.CheckResult
	}{
		"in order":                     {[]event{made, use(sawDone, 11, 19), disabled, use(sawDisabled, 31, 32)}, 0, porcupine.Ok},
		"a use while it changes":       {[]event{made, disabled, use(sawDone, 25, 40)}, 0, porcupine.Ok},
		"a late use":                   {[]event{made, disabled, use(sawDone, 900, 910)}, grace, porcupine.Ok},
		"a late use without grace":     {[]event{made, disabled, use(sawDone, 900, 910)}, 0, porcupine.Illegal},
		"a use that is too late":       {[]event{made, disabled, use(sawDone, 1040, 1050)}, grace, porcupine.Illegal},
		"a list has no grace":          {[]event{made, disabled, list(31, 32, map[string]bool{"k": true})}, grace, porcupine.Illegal},
		"a list of what is gone":       {[]event{made, deletedAll, list(31, 32, map[string]bool{"k": false})}, grace, porcupine.Illegal},
		"a list of nobody's key":       {[]event{made, list(31, 32, map[string]bool{"k": true, "x": true})}, grace, porcupine.Illegal},
		"a list of a key half made":    {[]event{made, {keyOp{action: "CreateKey"}, keySaw{what: sawNothing}, 0, 5}, list(31, 32, map[string]bool{"k": true, "x": true})}, grace, porcupine.Ok},
		"a key lost":                   {[]event{made, list(31, 32, nil)}, grace, porcupine.Illegal},
		"a change lost":                {[]event{made, disabled, use(sawDone, 5000, 5010)}, grace, porcupine.Illegal},
		"a change undone":              {[]event{made, disabled, use(sawDisabled, 31, 32), use(sawDone, 2000, 2001)}, grace, porcupine.Illegal},
		"disabled after it was gone":   {[]event{made, deletedAll, change("DisableKey", sawDone, 31, 40)}, grace, porcupine.Illegal},
		"enabled, and it is not":       {[]event{made, disabled, change("EnableKey", sawDone, 31, 40), use(sawDisabled, 2000, 2001)}, grace, porcupine.Illegal},
		"gone, and it was not":         {[]event{made, change("EnableKey", sawGone, 31, 40)}, grace, porcupine.Illegal},
		"an error that had no effect":  {[]event{made, change("DisableKey", sawNothing, 20, 30), use(sawDone, 2000, 2010)}, grace, porcupine.Ok},
		"an error with an effect":      {[]event{made, change("DisableKey", sawNothing, 20, 30), use(sawDisabled, 2000, 2010)}, grace, porcupine.Ok},
		"an error with a late effect":  {[]event{made, change("DisableKey", sawNothing, 20, 30), list(1000, 1001, map[string]bool{"k": true}), list(2000, 2001, map[string]bool{"k": false})}, grace, porcupine.Ok},
		"one error with two effects":   {[]event{made, change("DisableKey", sawNothing, 20, 30), list(40, 41, map[string]bool{"k": false}), change("EnableKey", sawDone, 50, 51), list(60, 61, map[string]bool{"k": false})}, grace, porcupine.Illegal},
		"an effect before its request": {[]event{made, use(sawDisabled, 11, 12), disabled}, grace, porcupine.Illegal},
	} {
		var h history
		for _, e := range tt.events {
			h.add(e.op, e.saw, time.Duration(e.call)*time.Millisecond, time.Duration(e.back)*time.Millisecond)
		}
		if got, err := h.check(tt.grace); got != tt.want {
			t.Errorf("%s: got %s, want %s (%v)", name, got, tt.want, err)
		}
	}
}
