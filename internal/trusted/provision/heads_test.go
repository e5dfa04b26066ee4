package provision

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// withLog gives a core a log of negative facts under its DomainKey.
func (p *program) withLog(t *testing.T, a *realm) *facts.Log {
	t.Helper()
	p.has(t, a)
	var l *facts.Log
	if err := p.holder.Use(func(k *domainkey.Keyring) error {
		l = facts.NewLog(k, 100)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	p.heads.(*facts.Reader).Attach(l)
	return l
}

// narrow adds an entry to the log of a core, and to entries.
func narrow(t *testing.T, l *facts.Log, entries []byte) []byte {
	t.Helper()
	first, e, err := draft(l.Draft([]facts.Fact{{ID: wire.RecordID{Type: wire.Key, ID: wire.NewUUID()}, Revision: 2}}))
	if err == nil {
		_, err = l.Extend(first, e, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	return append(bytes.Clone(entries), e...)
}

// TestHeads has the head of a log go from a core on one machine, by dkeycache,
// worker and root, to a core on another one.
func TestHeads(t *testing.T) {
	a := newRealm(t)
	root := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	worker := newProgram(t, 1, channel.DKeyServer, NewKnown(a.last.Domain, clock), NewHolder(heap))
	cacheA := newProgram(t, 0, channel.DKeyCache, NewKnown(a.last.Domain, clock), NewHolder(heap))
	cacheB := newProgram(t, 1, channel.DKeyCache, NewKnown(a.last.Domain, clock), NewHolder(heap))
	coreA := newProgram(t, 0, channel.Core, NewKnown(a.last.Domain, clock), NewHolder(heap))
	coreB := newProgram(t, 1, channel.Core, NewKnown(a.last.Domain, clock), NewHolder(heap))
	coreA.heads, coreB.heads = facts.NewReader(), facts.NewReader()
	atRoot := root.serve(t)
	worker.join(t, atRoot)
	cacheA.join(t, atRoot)
	cacheB.join(t, worker.serve(t))
	coreA.join(t, cacheA.serve(t))
	coreB.join(t, cacheB.serve(t))
	first, second := coreA.withLog(t, a), coreB.withLog(t, a)
	second.Extend(1, nil, true)
	if err := second.Ready(); err != nil {
		t.Fatal(err)
	}
	entries := narrow(t, first, nil)
	await(t, "the head at the other core", func() bool { return errors.Is(second.Ready(), facts.ErrBehind) })
	if h := root.heads.(*facts.Anchor).Head(); h != first.Head() {
		t.Errorf("root: got %s, want %s", h, first.Head())
	}
	if _, err := second.Extend(1, entries, true); err != nil || second.Ready() != nil {
		t.Errorf("shown the entry: %v, %v", err, second.Ready())
	}
	// The other core goes on, and the worker's head follows the root's and back.
	entries = narrow(t, second, entries)
	await(t, "its head at the root", func() bool { return root.heads.(*facts.Anchor).Head() == second.Head() })
	await(t, "and at the first core", func() bool { return errors.Is(first.Ready(), facts.ErrBehind) })
	// A core that starts has the head with its keys.
	late := newProgram(t, 1, channel.Core, NewKnown(a.last.Domain, clock), NewHolder(heap))
	late.heads = facts.NewReader()
	late.join(t, cacheB.serve(t))
	l := late.withLog(t, a)
	l.Extend(1, entries[:wire.FactSize], true)
	if err := l.Ready(); !errors.Is(err, facts.ErrBehind) {
		t.Errorf("half of the log: got %v, want ErrBehind", err)
	}
	l.Extend(1, entries, true)
	if err := l.Ready(); err != nil {
		t.Errorf("all of the log: got %v", err)
	}
}

// TestForkedHeads has two cores be shown different logs.
func TestForkedHeads(t *testing.T) {
	a := newRealm(t)
	root := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	cache := newProgram(t, 1, channel.DKeyCache, NewKnown(a.last.Domain, clock), NewHolder(heap))
	coreA := newProgram(t, 1, channel.Core, NewKnown(a.last.Domain, clock), NewHolder(heap))
	coreB := newProgram(t, 1, channel.Core, NewKnown(a.last.Domain, clock), NewHolder(heap))
	coreA.heads, coreB.heads = facts.NewReader(), facts.NewReader()
	cache.join(t, root.serve(t))
	at := cache.serve(t)
	coreA.join(t, at)
	coreB.join(t, at)
	first, second := coreA.withLog(t, a), coreB.withLog(t, a)
	_, other, err := draft(second.Draft([]facts.Fact{{ID: wire.RecordID{Type: wire.Key, ID: wire.NewUUID()}, Revision: 2}}))
	if err != nil {
		t.Fatal(err)
	}
	narrow(t, first, nil)
	await(t, "the head at the root", func() bool { return root.heads.(*facts.Anchor).Head() == first.Head() })
	second.Extend(1, other, true)
	await(t, "the end of the other core", func() bool { return errors.Is(second.Ready(), facts.ErrFork) })
	if h := root.heads.(*facts.Anchor).Head(); h != first.Head() || first.Ready() != nil {
		t.Errorf("root: got %s, %v, want %s", h, first.Ready(), first.Head())
	}
}

// draft takes what Log.Draft returns apart.
func draft(f *facts.Draft, err error) (first uint64, entries []byte, _ error) {
	if err != nil {
		return 0, nil, err
	}
	return f.First, f.Entries, nil
}
