package channel_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A model of the handshake, searched to its end: honest programs, and an attacker
// who ends TLS where he likes, drops, replays, reorders, reflects and relays, and
// makes up whatever needs no evidence and no exporter that he lacks. It shows that
// what is bound suffices and, by leaving bindings out, which of them does what.
// docs/channel.md#model says what the model leaves out.
//
// There are three runs of honest programs: a calls as dkeycache, b is called as
// dkeyserver, c calls as dkeyserver (so that b's evidence may come back to its own
// program). A fourth, old, has ended before: its evidence is known.

const (
	a, b, c, old = 0, 1, 2, 3
	attacker     = 9
)

const (
	mCache  = 'k'
	mServer = 's'
)

// mRun is what is fixed about a run.
var mRuns = [4]struct {
	side, role byte
	wants      string // roles
}{
	a: {clientSide, mCache, "s"}, b: {serverSide, mServer, "ks"}, c: {clientSide, mServer, "s"}, old: {clientSide, mCache, "s"},
}

// mOpening and mEvidence are messages. Nonces, keys and connections are named by
// the run they are of; those of the attacker's are his.
type mOpening struct{ side, role, nonce byte }

type mEvidence struct {
	by   byte // run that made it: fixes role, side, exporter and SPKI
	for_ byte // nonce that it was made for
	hpke byte // key that lies beside it; the evidence binds that of by
}

// mState is the state of a run. Zero values: nothing has come.
type mState struct {
	got      int // messages received
	opening  mOpening
	evidence mEvidence
	dead     bool
	open     bool
}

type mWorld struct {
	runs [3]mState
}

// mTopology says who is at the other end of each run's TLS connection.
type mTopology [3]byte

// mProtocol is a topology, and what the protocol lacks.
type mProtocol struct {
	to      mTopology
	broken  bool // the attacker reads and writes within TLS, but has no exporters
	without string
}

func (p *mProtocol) has(what string) bool { return !strings.Contains(" "+p.without+" ", " "+what+" ") }

func (p *mProtocol) direct(i int) bool { return p.to[i] != attacker }

// visible says whether the attacker reads what i sends.
func (p *mProtocol) visible(i int) bool { return !p.direct(i) || p.broken }

// sent says whether i has sent a message, which it does as soon as it may.
func sent(i int, s mState, message int) bool {
	if mRuns[i].side == clientSide {
		return s.got >= []int{0, 1, 3}[message]
	}
	return s.got >= []int{1, 2, 2}[message] // its acceptance follows its evidence
}

func ownOpening(i int) mOpening { return mOpening{mRuns[i].side, mRuns[i].role, byte(i)} }

func (w *mWorld) ownEvidence(i int) mEvidence {
	return mEvidence{by: byte(i), for_: w.runs[i].opening.nonce, hpke: byte(i)}
}

// transcript is what a run's acceptance is over.
func (w *mWorld) transcript(i int) string {
	own := fmt.Sprint(ownOpening(i), w.ownEvidence(i))
	theirs := fmt.Sprint(w.runs[i].opening, w.runs[i].evidence)
	if mRuns[i].side == clientSide {
		return own + theirs
	}
	return theirs + own
}

// openings are those that can be delivered to i.
func (p *mProtocol) openings(w *mWorld, i int) (all []mOpening) {
	if !p.visible(i) {
		if j := int(p.to[i]); sent(j, w.runs[j], 0) {
			all = append(all, ownOpening(j))
		}
		return all
	}
	nonces := []byte{attacker, old}
	for j := range w.runs {
		if p.visible(j) && sent(j, w.runs[j], 0) {
			nonces = append(nonces, byte(j))
		}
	}
	for _, n := range nonces {
		for _, side := range []byte{clientSide, serverSide} {
			for _, role := range []byte{mCache, mServer} {
				all = append(all, mOpening{side, role, n})
			}
		}
	}
	return all
}

// evidences are those that can be delivered to i.
func (p *mProtocol) evidences(w *mWorld, i int) (all []mEvidence) {
	if !p.visible(i) {
		if j := int(p.to[i]); sent(j, w.runs[j], 1) {
			all = append(all, w.ownEvidence(j))
		}
		return all
	}
	known := []mEvidence{{by: old, for_: 8, hpke: old}} // made for a nonce that is gone
	for j := range w.runs {
		if p.visible(j) && sent(j, w.runs[j], 1) {
			known = append(known, w.ownEvidence(j))
		}
	}
	for _, e := range known {
		all = append(all, e)
		e.hpke = attacker
		all = append(all, e)
	}
	return all
}

// acceptsOpening and acceptsEvidence are the checks of the protocol.
func (p *mProtocol) acceptsOpening(i int, m mOpening) bool {
	return m.side != mRuns[i].side && !(p.has("own-nonce") && m.nonce == byte(i)) && strings.ContainsRune(mRuns[i].wants, rune(m.role))
}

func (p *mProtocol) acceptsEvidence(w *mWorld, i int, e mEvidence) bool {
	by := mRuns[e.by]
	sameConnection := int(e.by) == i || p.direct(i) && p.to[i] == e.by
	peersKey := p.direct(i) && p.to[i] == e.by // the attacker's key is in nobody's evidence
	switch {
	case p.has("role") && by.role != w.runs[i].opening.role:
	case p.has("exporter") && !sameConnection:
	case p.has("side") && by.side == mRuns[i].side:
	case p.has("nonce") && e.for_ != byte(i):
	case p.has("spki") && !peersKey:
	case p.has("hpke") && e.hpke != e.by:
	default:
		return true
	}
	return false
}

// acceptable says whether an acceptance can be delivered to i that it takes.
func (p *mProtocol) acceptable(w *mWorld, i int) bool {
	if !p.has("accepted") || !p.direct(i) {
		return true // he has the exporter of his own connection
	}
	j := int(p.to[i])
	return sent(j, w.runs[j], 2) && !w.runs[j].dead && w.transcript(j) == w.transcript(i)
}

// next are all worlds one move away. What is refused ends the run; messages that
// are dropped do not come.
func (p *mProtocol) next(w mWorld) (all []mWorld) {
	for i := range w.runs {
		s := &w.runs[i]
		if s.dead || s.open {
			continue
		}
		move := func(change func(*mState)) {
			n := w
			change(&n.runs[i])
			all = append(all, n)
		}
		move(func(s *mState) { s.dead = true })
		switch s.got {
		case 0:
			for _, m := range p.openings(&w, i) {
				if p.acceptsOpening(i, m) {
					move(func(s *mState) { s.got, s.opening = 1, m })
				}
			}
		case 1:
			for _, e := range p.evidences(&w, i) {
				if p.acceptsEvidence(&w, i, e) {
					move(func(s *mState) { s.got, s.evidence = 2, e })
				}
			}
		case 2:
			if p.acceptable(&w, i) {
				move(func(s *mState) { s.got, s.open = 3, true })
			}
		}
	}
	return all
}

// flaw says what is wrong with a world: an open channel must be with an honest
// run, of the role that it claims, that made the evidence for it, now; to whose key
// one seals; and which has accepted in turn.
func (p *mProtocol) flaw(w *mWorld) string {
	for i, s := range w.runs {
		if !s.open {
			continue
		}
		j := int(p.to[i])
		switch {
		case !p.direct(i):
			return fmt.Sprintf("run %d has a channel with the attacker", i)
		case s.opening != ownOpening(j):
			return fmt.Sprintf("run %d takes its peer for another", i)
		case int(s.evidence.by) != j || s.evidence.for_ != byte(i):
			return fmt.Sprintf("run %d has evidence of something else", i)
		case int(s.evidence.hpke) != j:
			return fmt.Sprintf("run %d would seal to the attacker", i)
		case w.runs[j].got < 2:
			return fmt.Sprintf("run %d proceeds without the other's verdict", i)
		}
	}
	return ""
}

// search visits all worlds that can be reached, and returns the first flaw.
func (p *mProtocol) search() (flaw string, visited, opened int) {
	seen := map[mWorld]bool{{}: true}
	for queue := []mWorld{{}}; len(queue) > 0; {
		w := queue[0]
		queue = queue[1:]
		if slices.ContainsFunc(w.runs[:], func(s mState) bool { return s.open }) {
			opened++
		}
		if flaw := p.flaw(&w); flaw != "" {
			return flaw, len(seen), opened
		}
		for _, n := range p.next(w) {
			if !seen[n] {
				seen[n] = true
				queue = append(queue, n)
			}
		}
	}
	return "", len(seen), opened
}

var mTopologies = []mTopology{
	{attacker, attacker, attacker}, // he stands between all
	{b, a, attacker},               // a has b at its other end
	{attacker, c, b},               // c has b
}

func searchAll(without string) (flaws []string, visited, opened int) {
	for _, to := range mTopologies {
		for _, broken := range []bool{false, true} {
			p := &mProtocol{to, broken, without}
			flaw, v, o := p.search()
			visited, opened = visited+v, opened+o
			if flaw != "" {
				flaws = append(flaws, fmt.Sprintf("%v, TLS broken %v: %s", to, broken, flaw))
			}
		}
	}
	return flaws, visited, opened
}

// TestModel searches the protocol as it is, and then without some of what it
// binds. Where one binding can be left out, another stands behind it.
func TestModel(t *testing.T) {
	for _, row := range []struct {
		without string
		flawed  bool
	}{
		{"", false},
		{"exporter", false}, // the key of the certificate tells connections apart too
		{"spki", false},     // and the exporter tells them apart
		{"exporter spki", true},
		{"exporter spki side nonce", true},
		{"spki side", false}, // the own nonce does not come back
		{"spki side own-nonce", true},
		{"spki side nonce", true},
		{"nonce", false}, // exporter and key are of one connection anyway
		{"hpke", false},  // the acceptances are over the keys
		{"hpke accepted", true},
		{"accepted", true}, // half-open verdicts
		{"role", false},    // in the model each program tells its true role
	} {
		flaws, visited, opened := searchAll(row.without)
		if (len(flaws) > 0) != row.flawed {
			t.Errorf("without %q: got %v, want flaws: %v", row.without, flaws, row.flawed)
		}
		if opened == 0 {
			t.Errorf("without %q: no channel ever opens", row.without)
		}
		if row.without == "" {
			t.Logf("visited %d worlds, %d with an open channel", visited, opened)
		}
	}
}
