package attested_test

import "testing"

// Two clients with apps in one domain seal requests: the first one two, the second one
// one, and the attacker has the second one's API key, which he has also put into an app
// of his own domain. All requests change something, so that each may be executed once.
// The core has another HPKE key at some time, and forgets the first one later. In the
// end the attacker may get into the core, and has all keys that it has then.

const (
	sRequests = 3
	sThird    = 2 // request of the client whose API key the attacker has
)

func clientOf(request int) int { return request / 2 }

// States of the first key of pCore.
const (
	sCurrent = iota
	sFormer
	sEnded
)

type sRequest struct {
	sent statement // what it is sealed to; zero: it is not
	runs uint8     // how often a core of the domain has executed it
	// answer is the request, counted from 1, that the reply belongs to which the client
	// took, pEvil for the attacker's; 0: it waits.
	answer  byte
	foreign bool // a core of the attacker's domain has executed it
}

type sWorld struct {
	requests [sRequests]sRequest
	first    uint8 // state of the first key of pCore
	mislead  bool  // something was executed that the manager takes for another
	late     bool  // something was executed that is sealed to an ended key
	inside   bool  // the attacker is in pCore
}

func (p protocol) nextSealed(w sWorld) (all []sWorld) {
	if w.inside {
		return nil
	}
	move := func(change func(*sWorld)) {
		n := w
		change(&n)
		all = append(all, n)
	}
	move(func(w *sWorld) { w.inside = true })
	if w.first != sEnded {
		move(func(w *sWorld) { w.first++ })
	}
	current := byte(pCore)
	if w.first != sCurrent {
		current = keyNext
	}
	// He seals a request of the second client's himself, and says something else outside.
	if !p.has("outer") {
		move(func(w *sWorld) { w.mislead = true })
	}
	for i, r := range w.requests {
		if r.sent != (statement{}) {
			p.serve(&w, i, move)
			p.answers(&w, i, move)
			continue
		}
		for _, s := range p.verified(current) {
			s.instance = 0 // nothing asks for it
			move(func(w *sWorld) { w.requests[i].sent = s })
		}
	}
	return all
}

// serve brings a sealed request to each core, as it is and with another outer part.
func (p protocol) serve(w *sWorld, i int, move func(func(*sWorld))) {
	r := w.requests[i]
	ended := r.sent.key == pCore && w.first == sEnded
	for _, at := range []struct{ program, key byte }{{pCore, pCore}, {pCore, keyNext}, {pOther, pOther}, {pForeign, pForeign}} {
		switch {
		case !p.opens(at.program, at.key, r.sent):
		case at.key == keyNext && w.first == sCurrent:
		case ended && (p.has("end") || p.has("erase")):
		case at.program == pForeign:
			if clientOf(i) == clientOf(sThird) { // he lacks the other API key
				move(func(w *sWorld) { w.requests[i].foreign = true })
			}
		case p.has("replay") && r.runs > 0, r.runs > 1:
		default:
			for _, altered := range []bool{false, true} {
				if altered && (p.has("aad") || p.has("outer")) {
					continue
				}
				move(func(w *sWorld) {
					w.requests[i].runs++
					w.mislead, w.late = w.mislead || altered, w.late || ended
				})
			}
		}
	}
}

// answers brings replies to the client that waits for one.
func (p protocol) answers(w *sWorld, i int, move func(func(*sWorld))) {
	r := w.requests[i]
	if r.answer != 0 {
		return
	}
	for j, other := range w.requests {
		// Requests of one client to one key share the secret of an encapsulation.
		same := clientOf(i) == clientOf(j) && other.sent == r.sent
		if other.runs > 0 && same && (i == j || !p.has("bound") && !p.has("sign")) {
			move(func(w *sWorld) { w.requests[i].answer = byte(j + 1) })
		}
	}
	signs := !p.has("sign") || clientOf(i) == clientOf(sThird) // he can
	if signs && (!p.has("clear") || leaked(r.sent.key)) {
		move(func(w *sWorld) { w.requests[i].answer = pEvil })
	}
}

func (p protocol) flawSealed(w *sWorld) string {
	for i, r := range w.requests {
		switch {
		case leaked(r.sent.key):
			return "the attacker reads a request"
		case r.foreign:
			return "a request is executed in the attacker's domain, who reads what it stores"
		case r.runs > 1:
			return "a request is executed twice"
		case r.answer == pEvil:
			return "a client takes a reply of the attacker"
		case r.answer != 0 && r.answer != byte(i+1):
			return "a client takes the reply to another request"
		case w.inside && r.sent.key == pCore && w.first == sEnded && !p.has("erase"):
			return "the attacker reads a request of long ago"
		}
	}
	switch {
	case w.mislead:
		return "the manager takes a request for another"
	case w.late:
		return "a request is opened with a key that has ended"
	}
	return ""
}

// TestSealedModel searches sealed requests as they are, and then without some of
// their checks.
func TestSealedModel(t *testing.T) {
	rows := []modelRow{
		{"", false},
		{"code", true},
		{"use", true},
		{"challenge", true},
		{"key", true},
		{"pin", true}, // for the one whose API key has leaked: who has no other's app executes nothing
		{"domain", false},
		{"domain info", true},
		{"instance", false},
		{"info", false},
		{"aad", false},  // the outer part is compared with what is inside
		{"outer", true}, // nothing else binds who seals himself
		{"bound", false},
		{"sign", false},
		{"bound sign", true},
		{"clear", true}, // for the one whose API key has leaked
		{"replay", true},
		{"end", false},  // the key is gone
		{"erase", true}, // who gets in has it
		{"end erase", true},
	}
	checkModel(t, rows, func(p protocol) (string, int) {
		return explore(sWorld{}, p.nextSealed, p.flawSealed)
	})
	done := func(w *sWorld) string {
		for i, r := range w.requests {
			if r.answer != byte(i+1) {
				return ""
			}
		}
		return "all are answered"
	}
	if got, _ := explore(sWorld{}, protocol{}.nextSealed, done); got == "" {
		t.Error("the clients never get all of their replies")
	}
}
