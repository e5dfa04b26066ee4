package provision

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// someone is a member with something in each of its fields.
func someone() overview.Member {
	return overview.Member{
		Instance: overview.ID{1}, Role: manifest.RoleDKeyCache, Via: overview.ID{2}, State: overview.Connected, Evidence: overview.ByQuote,
		Platform: "sgx", Machine: "node 1", PPID: manifest.PPID{3}, Serial: "0a0b", MREnclave: manifest.Hash{4}, MRSigner: manifest.Hash{5},
		Product: 2, SVN: 7, Debug: true, TCBStatus: "OutOfDate", Advisories: []string{"INTEL-SA-1", "X"},
		TCBGraceUntil: time.Unix(0x65000000, 0).UTC(), CollateralGraceUntil: time.Unix(0x65000001, 0).UTC(), EvidenceUntil: time.Unix(0x65000002, 0).UTC(),
		Attested: time.Unix(0x65000003, 0).UTC(), Manifest: 0x0102, DomainKey: 3, LeaseSeconds: 0x0003f480, SeenSeconds: 9,
		Rewrap: overview.Rewrap{Floor: 2, Done: 1, Total: 0x300, Looked: 0x20, Refused: 1, Compromised: 1, Keys: 0x0c, Secrets: 3, APIKeys: 4, Tenants: 5}, Address: "10.0.0.1:2",
	}
}

// someoneHex is someone in a list of one, written out by hand.
const someoneHex = "00000001" +
	"01000000000000000000000000000000" + "0009" + "646b65796361636865" + "02000000000000000000000000000000" + "01" + "01" +
	"0003" + "736778" + "0006" + "6e6f64652031" + "03000000000000000000000000000000" + "0004" + "30613062" +
	"04" + "00000000000000000000000000000000000000000000000000000000000000" +
	"05" + "00000000000000000000000000000000000000000000000000000000000000" +
	"0002" + "0007" + "01" + "0009" + "4f75744f6644617465" + "00000002" + "000a" + "494e54454c2d53412d31" + "0001" + "58" +
	"0000000065000000" + "0000000065000001" + "0000000065000002" + "0000000065000003" +
	"0000000000000102" + "00000003" + "0003f480" + "00000009" +
	"00000002" + "00000001" + "0000000000000300" + "0000000000000020" + "0000000000000001" +
	"00000001" + "000000000000000c" + "0000000000000003" + "0000000000000004" + "0000000000000005" + "000a" + "31302e302e302e313a32"

func TestMalformedMembers(t *testing.T) {
	for name, edit := range map[string]func(*overview.Member){
		"role":                 func(m *overview.Member) { m.Role = "king" },
		"state":                func(m *overview.Member) { m.State = "" },
		"evidence":             func(m *overview.Member) { m.Evidence = "" },
		"escape sequence":      func(m *overview.Member) { m.Machine = "\x1b[2J" },
		"line":                 func(m *overview.Member) { m.Address = "a\nb" },
		"text from the right":  func(m *overview.Member) { m.TCBStatus = "\u202e" },
		"no UTF-8":             func(m *overview.Member) { m.Platform = "\xff" },
		"long text":            func(m *overview.Member) { m.Serial = strings.Repeat("a", 65) },
		"advisory":             func(m *overview.Member) { m.Advisories = []string{"\t"} },
		"very many advisories": func(m *overview.Member) { m.Advisories = make([]string, 65) },
		"date":                 func(m *overview.Member) { m.Attested = time.Unix(maxDate+1, 0) },
	} {
		m := someone()
		edit(&m)
		b := (&message{kind: tellMembers, members: []overview.Member{m}}).append(nil)
		if got, err := decode(b); !errors.Is(err, ErrMessage) || !reflect.DeepEqual(got, message{}) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

// quoted is a peer with a quote of one of two machines.
func quoted(r channel.Role, n byte) channel.Peer {
	q := &verify.Result{Status: verify.UpToDate, Platform: verify.Platform{PPID: [16]byte{n}, Serial: fmt.Sprintf("%02x", n)}}
	return channel.Peer{Role: r, Identity: tee.Identity{Measurement: [32]byte{n}, Product: r.Product()}, Kind: attest.SGXQuote3, Machine: attest.Machine{PPID: q.Platform.PPID, Serial: q.Platform.Serial}, Quote: q, Decision: validate.Decision{Platform: fmt.Sprint("node ", n)}}
}

// says is what a program says of itself.
func says(r channel.Role, id byte) overview.Member {
	return overview.Member{Instance: overview.ID{id}, Role: string(r), State: overview.Connected, Evidence: overview.ByItself, Manifest: 1, DomainKey: 1, LeaseSeconds: 100}
}

func listOf(id byte) *Members { return NewMembers(&Self{instance: overview.ID{id}}) }

func find(t *testing.T, a *Members, id byte) overview.Member {
	t.Helper()
	for _, m := range a.list(overview.ID{}) {
		if m.Instance == (overview.ID{id}) {
			return m
		}
	}
	t.Fatalf("no member %d", id)
	return overview.Member{}
}

// TestMembersAreAsAttested has peers that say of themselves what they are not.
func TestMembersAreAsAttested(t *testing.T) {
	a := listOf(100)
	cache := says(channel.DKeyCache, 1)
	cache.PPID, cache.Machine, cache.MREnclave, cache.SVN, cache.TCBStatus, cache.Evidence, cache.Platform = manifest.PPID{66}, "palace", manifest.Hash{66}, 66, "UpToDate!", overview.ByQuote, "gold"
	core := says(channel.Core, 2)
	core.PPID, core.Machine, core.Evidence, core.Via = manifest.PPID{66}, "palace", overview.ByReport, overview.ID{66}
	at := a.arrive(quoted(channel.DKeyCache, 7), "10.0.0.7:1")
	if err := at.told(quoted(channel.DKeyCache, 7), []overview.Member{cache, core}); err != nil {
		t.Fatal(err)
	}
	got := find(t, a, 1)
	if got.PPID != (manifest.PPID{7}) || got.Machine != "node 7" || got.MREnclave != (manifest.Hash{7}) || got.SVN != 0 || got.TCBStatus != "UpToDate" ||
		got.Via != (overview.ID{100}) || got.Platform != "sgx" || got.Address != "10.0.0.7:1" || got.DomainKey != 1 {
		t.Errorf("the dkeycache: got %+v", got)
	}
	if got := find(t, a, 2); got.PPID != (manifest.PPID{7}) || got.Machine != "node 7" || got.Via != (overview.ID{1}) {
		t.Errorf("its core: got %+v", got)
	}
}

// TestMembersRefused has lists in which a peer has no say.
func TestMembersRefused(t *testing.T) {
	for name, row := range map[string]struct {
		role channel.Role
		list []overview.Member
	}{
		"nobody":                   {channel.DKeyCache, nil},
		"another role":             {channel.DKeyCache, []overview.Member{says(channel.Core, 1)}},
		"no instance":              {channel.DKeyCache, []overview.Member{says(channel.DKeyCache, 0)}},
		"the server's instance":    {channel.DKeyCache, []overview.Member{says(channel.DKeyCache, 100)}},
		"core of another":          {channel.Core, []overview.Member{says(channel.Core, 1), says(channel.Core, 2)}},
		"dkeycache of a dkeycache": {channel.DKeyCache, []overview.Member{says(channel.DKeyCache, 1), says(channel.DKeyCache, 2)}},
		"dkeycache of a server":    {channel.DKeyCache, []overview.Member{says(channel.DKeyCache, 1), says(channel.DKeyServer, 2)}},
		"one without instance":     {channel.DKeyServer, []overview.Member{says(channel.DKeyServer, 1), says(channel.Core, 0)}},
	} {
		a := listOf(100)
		if err := a.arrive(quoted(row.role, 1), "").told(quoted(row.role, 1), row.list); !errors.Is(err, ErrMessage) || len(a.list(overview.ID{})) != 0 {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestMembersComeAndGo has a node that connects to a worker, then to the root.
func TestMembersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := listOf(100)
		worker := root.arrive(quoted(channel.DKeyServer, 1), "")
		behind := says(channel.DKeyCache, 3)
		behind.Evidence, behind.Via, behind.Machine = overview.ByQuote, overview.ID{2}, "node 3"
		core := says(channel.Core, 4)
		core.Via = overview.ID{3}
		list := []overview.Member{says(channel.DKeyServer, 2), behind, core, says(channel.DKeyServer, 100)}
		if err := worker.told(quoted(channel.DKeyServer, 1), list); err != nil {
			t.Fatal(err)
		}
		if got := root.list(overview.ID{}); len(got) != 3 || got[0].Role != string(channel.DKeyServer) || got[2].Role != string(channel.Core) {
			t.Errorf("got %+v", got)
		}
		if got := root.list(overview.ID{2}); len(got) != 0 {
			t.Errorf("told back to who told: %+v", got)
		}
		before := root.state()
		worker.heard(quoted(channel.DKeyServer, 1), Report{Manifest: 1, Keys: 1})
		if root.state() != before {
			t.Error("a heartbeat is news")
		}
		worker.heard(quoted(channel.DKeyServer, 1), Report{Manifest: 2, Keys: 1})
		if root.state() == before || find(t, root, 2).Manifest != 2 {
			t.Error("a manifest is no news")
		}

		time.Sleep(time.Minute) // of synctest
		direct := root.arrive(quoted(channel.DKeyCache, 5), "")
		if err := direct.told(quoted(channel.DKeyCache, 5), []overview.Member{says(channel.DKeyCache, 3), says(channel.Core, 4)}); err != nil {
			t.Fatal(err)
		}
		if err := worker.told(quoted(channel.DKeyServer, 1), list); err != nil {
			t.Fatal(err)
		}
		if got := find(t, root, 3); got.Machine != "node 5" || got.SeenSeconds != 0 {
			t.Errorf("what the worker says outweighs the own channel: %+v", got)
		}
		direct.leave(false)
		worker.leave(false)
		time.Sleep(90 * time.Second)
		for _, id := range []byte{2, 3, 4} {
			if got := find(t, root, id); got.State != overview.Left || got.SeenSeconds != 90 {
				t.Errorf("%d: got %+v", id, got)
			}
		}
		again := root.arrive(quoted(channel.DKeyCache, 5), "")
		if err := again.told(quoted(channel.DKeyCache, 5), []overview.Member{says(channel.DKeyCache, 3)}); err != nil {
			t.Fatal(err)
		}
		if find(t, root, 3).State != overview.Connected || find(t, root, 4).State != overview.Left {
			t.Error("a dkeycache came back without its core")
		}
		again.leave(true)
		if got := find(t, root, 3); got.State != overview.Removed {
			t.Errorf("removed: got %+v", got)
		}
		time.Sleep(memberKept + time.Hour)
		if got := root.list(overview.ID{}); len(got) != 0 {
			t.Errorf("a day later: got %+v", got)
		}
	})
}

// TestRemovedWithItsCores has a dkeycache that is told that it is removed.
func TestRemovedWithItsCores(t *testing.T) {
	a := listOf(100)
	at := a.arrive(quoted(channel.DKeyCache, 1), "")
	if err := at.told(quoted(channel.DKeyCache, 1), []overview.Member{says(channel.DKeyCache, 1), says(channel.Core, 2)}); err != nil {
		t.Fatal(err)
	}
	at.leave(true)
	if find(t, a, 1).State != overview.Removed || find(t, a, 2).State != overview.Removed {
		t.Errorf("got %+v", a.list(overview.ID{}))
	}
}

// TestMembersAreBounded fills the list.
func TestMembersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := listOf(255)
		list := []overview.Member{says(channel.DKeyServer, 1)}
		for i := range overview.MaxMembers {
			m := says(channel.Core, 2)
			m.Instance[1], m.Instance[2], m.State, m.SeenSeconds = byte(i>>8), byte(i), overview.Left, uint32(i)
			list = append(list, m)
		}
		if err := a.arrive(quoted(channel.DKeyServer, 1), "").told(quoted(channel.DKeyServer, 1), list); err != nil {
			t.Fatal(err)
		}
		got := a.list(overview.ID{})
		if len(got) != overview.MaxMembers-1 {
			t.Errorf("got %d members", len(got))
		}
		find(t, a, 1)
		oldest := a.list(overview.ID{1}) // all were told by 1
		if len(oldest) != 0 {
			t.Errorf("%d are known otherwise", len(oldest))
		}
		newcomer := a.arrive(quoted(channel.DKeyCache, 2), "")
		if err := newcomer.told(quoted(channel.DKeyCache, 2), []overview.Member{says(channel.DKeyCache, 3)}); err != nil {
			t.Fatal(err)
		}
		if find(t, a, 3).State != overview.Connected || len(a.list(overview.ID{})) != len(got) {
			t.Error("nobody made room")
		}
	})
}

// TestFittingMembers has more than a message has room for.
func TestFittingMembers(t *testing.T) {
	list := []overview.Member{says(channel.DKeyServer, 1)}
	for i := range overview.MaxMembers - 1 {
		m := someone()
		m.SeenSeconds, m.Address = uint32(overview.MaxMembers-i), strings.Repeat("a", overview.MaxText)
		list = append(list, m)
	}
	got := fittingMembers(list)
	b := (&message{kind: members, members: got}).append(nil)
	if len(got) == len(list) || len(b) > channel.MaxMessage || got[0].Instance != list[0].Instance || got[1].SeenSeconds != 2 {
		t.Errorf("got %d of %d in %d bytes", len(got), len(list), len(b))
	}
	if _, err := decode(b); err != nil {
		t.Error(err)
	}
}

// TestWholeDomainIsKnown has each dkeyserver know of everybody.
func TestWholeDomainIsKnown(t *testing.T) {
	a := newRealm(t)
	root := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	worker := newProgram(t, 1, channel.DKeyServer, NewKnown(a.last.Domain, clock), NewHolder(heap))
	cache := newProgram(t, 1, channel.DKeyCache, NewKnown(a.last.Domain, clock), NewHolder(heap))
	other := newProgram(t, 0, channel.DKeyCache, NewKnown(a.last.Domain, clock), NewHolder(heap))
	core := newProgram(t, 1, channel.Core, NewKnown(a.last.Domain, clock), NewHolder(heap))
	atRoot := root.serve(t)
	other.join(t, atRoot)
	worker.join(t, atRoot)
	cache.join(t, worker.serve(t))
	core.join(t, cache.serve(t))
	for _, p := range []*program{root, worker} {
		await(t, "everybody at a dkeyserver", func() bool {
			have := map[string]int{}
			for _, m := range p.members.list(overview.ID{}) {
				if m.State == overview.Connected && m.DomainKey == 1 && m.PPID != (manifest.PPID{}) {
					have[m.Role]++
				}
			}
			return have["core"] == 1 && have["dkeycache"] == 2 && have["dkeyserver"] == 1
		})
	}
	for _, m := range root.members.list(overview.ID{}) {
		want, via := ppid(t, 1), worker.self.instance
		switch m.Instance {
		case other.self.instance:
			want, via = ppid(t, 0), root.self.instance
		case worker.self.instance:
			via = root.self.instance
		case core.self.instance:
			via = cache.self.instance
		}
		if m.PPID != want || m.Via != via || m.Platform != "sim" || !bytes.Equal(m.MRSigner[:], hexOf(load(t, 0, channel.Core, signerSeed).Identity().Signer)) {
			t.Errorf("%s: got %+v", m.Role, m)
		}
	}
}

func hexOf(b [32]byte) []byte { return b[:] }

func FuzzMembers(f *testing.F) {
	b, err := hex.DecodeString("0105" + someoneHex)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil || m.kind != tellMembers {
			return
		}
		a := listOf(200)
		for _, r := range roles {
			a.arrive(quoted(r, 1), "").told(quoted(r, 1), m.members)
		}
		for _, m := range a.list(overview.ID{}) {
			if err := m.Validate(); err != nil {
				t.Error(err)
			}
		}
	})
}
