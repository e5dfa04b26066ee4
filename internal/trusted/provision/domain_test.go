package provision

import (
	"errors"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

func window(n int) func(*manifest.Statement) {
	return func(s *manifest.Statement) { s.Settings.RequestWindow = n }
}

func TestDomainRefusals(t *testing.T) {
	a, other := newRealm(t), newRealm(t)
	second := a.next(t, window(100))
	third := a.next(t, window(200))
	unsigned := a.follow(t, a.last, nil)
	m, err := manifest.Parse(unsigned)
	if err != nil {
		t.Fatal(err)
	}
	m.Signatures = []manifest.Signature{}
	if unsigned, err = m.Encode(); err != nil {
		t.Fatal(err)
	}
	ahead := a.follow(t, a.last, func(s *manifest.Statement) { s.Date = start.AddDate(0, 0, 2) })
	foreign := other.next(t, nil)
	for _, row := range []struct {
		name  string
		files [][]byte // offered to a domain that has all three
		want  error
	}{
		{"junk", [][]byte{[]byte("{}")}, manifest.ErrInvalid},
		{"of another domain", [][]byte{foreign}, manifest.ErrPrevious},
		{"genesis of another domain", [][]byte{other.files[0]}, manifest.ErrPrevious},
		{"unsigned", [][]byte{unsigned}, manifest.ErrQuorum},
		{"from the day after tomorrow", [][]byte{ahead}, manifest.ErrDate},
		{"too long", [][]byte{make([]byte, maxManifest+1)}, manifest.ErrInvalid},
		{"old", [][]byte{second}, nil},
		{"all that is known", [][]byte{a.files[0], second, third}, nil},
		{"none", nil, nil},
		{"good, then junk", [][]byte{a.follow(t, a.last, window(300)), []byte("x")}, manifest.ErrInvalid},
	} {
		d := a.open(t)
		newer, err := d.Add(row.files)
		if newer || !errors.Is(err, row.want) || d.Manifest() != 3 {
			t.Errorf("%s: got %v, %v, manifest %d; want %v", row.name, newer, err, d.Manifest(), row.want)
		}
	}
	for name, row := range map[string]struct {
		files [][]byte
		want  error
	}{
		"nothing":            {nil, ErrMessage},
		"no genesis":         {[][]byte{second}, manifest.ErrVersion},
		"another domain":     {other.files, ErrDomain},
		"a manifest missing": {[][]byte{a.files[0], third}, manifest.ErrPrevious},
	} {
		if _, err := OpenDomain(a.last.Domain, row.files, clock); !errors.Is(err, row.want) {
			t.Errorf("open %s: got %v, want %v", name, err, row.want)
		}
	}
	if d, err := OpenDomain([32]byte{}, other.files, clock); err != nil || d.State().Domain != other.last.Domain {
		t.Errorf("any domain: got %v", err)
	}
}

// TestTwoWaysOn has operators sign two manifests that follow one: the way that gets
// further wins, everywhere.
func TestTwoWaysOn(t *testing.T) {
	a := newRealm(t)
	d := a.open(t)
	left, right := a.follow(t, a.last, window(100)), a.follow(t, a.last, window(200))
	if newer, err := d.Add([][]byte{left}); !newer || err != nil {
		t.Fatal(err)
	}
	changed := d.Changed()
	if newer, err := d.Add([][]byte{right}); newer || err != nil || d.State().Settings.RequestWindow != 100 {
		t.Errorf("the other way of the same length: got %v, %v", newer, err)
	}
	select {
	case <-changed:
		t.Error("nothing has changed")
	default:
	}
	second, err := a.last.Next(right, start)
	if err != nil {
		t.Fatal(err)
	}
	third := a.follow(t, second, window(300))
	if newer, err := d.Add([][]byte{third}); newer || !errors.Is(err, manifest.ErrPrevious) {
		t.Errorf("what follows there: got %v, %v", newer, err)
	}
	if newer, err := d.Add([][]byte{right, third}); !newer || err != nil || d.State().Settings.RequestWindow != 300 || len(d.After(0)) != 3 {
		t.Errorf("with what lies between: got %v, %v", newer, err)
	}
	<-changed
	if got := d.After(1); len(got) != 2 || string(got[0]) != string(right) {
		t.Errorf("after the genesis: got %d", len(got))
	}
}

// TestTwoWaysBetweenPrograms has the same in two programs.
func TestTwoWaysBetweenPrograms(t *testing.T) {
	a := newRealm(t)
	left, right := a.follow(t, a.last, window(100)), a.follow(t, a.last, window(200))
	second, err := a.last.Next(right, start)
	if err != nil {
		t.Fatal(err)
	}
	root := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	cache := newProgram(t, 1, channel.DKeyCache, a.knowing(t), NewHolder(heap))
	if _, err := root.known.Get().Add([][]byte{left}); err != nil {
		t.Fatal(err)
	}
	if _, err := cache.known.Get().Add([][]byte{right}); err != nil {
		t.Fatal(err)
	}
	cache.join(t, root.serve(t))
	cache.has(t, a)
	if _, err := root.known.Get().Add([][]byte{right, a.follow(t, second, window(300))}); err != nil {
		t.Fatal(err)
	}
	await(t, "the longer way", func() bool { return cache.known.Get().State().Settings.RequestWindow == 300 })
}

func TestTimeNeverRunsBackwards(t *testing.T) {
	a := newRealm(t)
	now := start
	d, err := OpenDomain([32]byte{}, a.files, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name      string
		host      time.Time
		raise     time.Time
		want      time.Time
		wantFloor time.Time
	}{
		{"the host's", start, time.Time{}, start, a.last.Date},
		{"back", start.Add(-time.Hour), time.Time{}, start, a.last.Date},
		{"a signed date", start, start.Add(time.Hour), start.Add(time.Hour), start.Add(time.Hour)},
		{"an earlier one", start, start, start.Add(time.Hour), start.Add(time.Hour)},
		{"forward", start.Add(2 * time.Hour), time.Time{}, start.Add(2 * time.Hour), start.Add(time.Hour)},
		{"back again", start, time.Time{}, start.Add(2 * time.Hour), start.Add(time.Hour)},
	} {
		now = row.host
		d.Raise(row.raise)
		if got := d.Now(); !got.Equal(row.want) || !d.Floor().Equal(row.wantFloor) {
			t.Errorf("%s: got %v, floor %v", row.name, got, d.Floor())
		}
	}
	now = time.Time{}
	if early, err := OpenDomain([32]byte{}, a.files, func() time.Time { return now }); err != nil || !early.Now().Equal(a.last.Date) {
		t.Errorf("before the genesis: got %v", err)
	}
}

// TestAdmitsGuests has guests of both kinds in the manifest: each in its roles, on
// its machines.
func TestAdmitsGuests(t *testing.T) {
	a := newRealm(t)
	guest := manifest.TDXGuest{MRTD: manifest.Register{1}, RTMR2: manifest.Register{2}, MRConfigID: manifest.Register{3}}
	a.next(t, func(s *manifest.Statement) {
		s.Settings.Code = append(s.Settings.Code, manifest.Code{Role: manifest.RoleCore, TDX: guest}, manifest.Code{Role: manifest.RoleDKeyCache, TDX: guest},
			manifest.Code{Role: manifest.RoleCore, SNP: manifest.SNPGuest{Measurement: manifest.Register{4}, HostData: manifest.Hash{5}}})
		s.Settings.SNPMinTCB, s.Settings.TrustRoots = manifest.SNPTCB{SNP: 8}, []string{manifest.IntelSGX, manifest.AMDSNP}
		s.Settings.Platforms = append(s.Settings.Platforms, manifest.Platform{Name: "chip", Chip: manifest.ChipID{6}})
	})
	d := a.open(t)
	tdx := tee.Identity{Measurement: attest.TDXMeasurement(guest.MRTD, guest.MRConfigID, [4][48]byte{2: guest.RTMR2}), Product: tee.ProductCore}
	snp := tee.Identity{Measurement: attest.SNPMeasurement([48]byte{4}, [32]byte{5}), Product: tee.ProductCore}
	with := func(id tee.Identity, change func(*tee.Identity)) tee.Identity { change(&id); return id }
	one, chip := &attest.Machine{PPID: ppid(t, 0)}, &attest.Machine{Chip: [64]byte{6}}
	for _, row := range []struct {
		name     string
		role     channel.Role
		id       tee.Identity
		machine  *attest.Machine
		admitted bool
	}{
		{"TDX as core", channel.Core, tdx, one, true},
		{"TDX as dkeycache", channel.DKeyCache, tdx, one, true},
		{"TDX as dkeyserver", channel.DKeyServer, tdx, one, false},
		{"TDX on another machine", channel.Core, tdx, &attest.Machine{PPID: [16]byte{9}}, false},
		{"TDX in debug mode", channel.Core, with(tdx, func(id *tee.Identity) { id.Debug = true }), one, false},
		{"an enclave with the guest's measurement", channel.Core, with(tdx, func(id *tee.Identity) { id.Signer = [32]byte{1} }), one, false},
		{"other TDX guest", channel.Core, with(tdx, func(id *tee.Identity) { id.Measurement[0] ^= 1 }), one, false},
		{"SEV-SNP as core", channel.Core, snp, chip, true},
		{"SEV-SNP as dkeycache", channel.DKeyCache, snp, chip, false},
		{"SEV-SNP on another chip", channel.Core, snp, &attest.Machine{Chip: [64]byte{7}}, false},
		{"SEV-SNP with other host data", channel.Core, with(snp, func(id *tee.Identity) { id.Measurement = attest.SNPMeasurement([48]byte{4}, [32]byte{}) }), chip, false},
	} {
		if err := d.admits(row.role, row.id, row.machine); (err == nil) != row.admitted || err != nil && !errors.Is(err, ErrRemoved) {
			t.Errorf("%s: got %v", row.name, err)
		}
	}
	if d.Guests(channel.DKeyServer) != nil || d.Guests(channel.Core) == nil {
		t.Error("Guests: other roles than the manifest's")
	}
}

func TestAdmits(t *testing.T) {
	a := newRealm(t)
	a.next(t, func(s *manifest.Statement) {
		s.Settings.Platforms = []manifest.Platform{{Name: "one", PPID: ppid(t, 0)}, {Name: "two", Serial: "0a0b"}}
	})
	d := a.open(t)
	core := load(t, 0, channel.Core, signerSeed).Identity()
	debug, older := core, core
	debug.Debug, older.SVN = true, 0
	one := attest.Machine{PPID: machine(t, 0).Terms(start).Platform.PPID}
	for _, row := range []struct {
		name     string
		ask      func() error
		admitted bool
	}{
		{"core", func() error { return d.admits(channel.Core, core, nil) }, true},
		{"on machine one", func() error { return d.admits(channel.Core, core, &one) }, true},
		{"by serial", func() error { return d.admits(channel.Core, core, &attest.Machine{Serial: "0a0b"}) }, true},
		{"other machine", func() error { return d.admits(channel.Core, core, &attest.Machine{PPID: [16]byte{9}}) }, false},
		{"machine without numbers", func() error { return d.admits(channel.Core, core, &attest.Machine{}) }, false},
		{"core as dkeycache", func() error { return d.admits(channel.DKeyCache, core, nil) }, false},
		{"debug mode", func() error { return d.admits(channel.Core, debug, nil) }, false},
		{"older version", func() error { return d.admits(channel.Core, older, nil) }, false},
		{"stranger", func() error {
			return d.admits(channel.Core, load(t, 0, channel.Core, strangerSeed).Identity(), nil)
		}, false},
		{"no role", func() error { return d.admits("", core, nil) }, false},
	} {
		if err := row.ask(); (err == nil) != row.admitted || err != nil && !errors.Is(err, ErrRemoved) {
			t.Errorf("%s: got %v", row.name, err)
		}
	}
}

// TestMachinesWithoutGraceAreRemembered has what decides about grace periods.
func TestMachinesWithoutGraceAreRemembered(t *testing.T) {
	d := newRealm(t).open(t)
	peer := func(n byte) channel.Peer {
		return channel.Peer{Quote: &verify.Result{Platform: verify.Platform{PPID: [16]byte{n}}, LatestIssue: start.Add(time.Hour)}}
	}
	late := peer(2)
	late.Decision.TCBGraceUntil = start
	stale := peer(3)
	stale.Decision.CollateralGraceUntil = start
	for _, p := range []channel.Peer{peer(1), late, stale, {}} {
		d.remember(p)
	}
	for n, want := range []bool{false, true, false, false} {
		if got := d.Admitted(verify.Platform{PPID: [16]byte{byte(n)}}); got != want {
			t.Errorf("machine %d: got %v", n, got)
		}
	}
	if !d.Floor().Equal(start.Add(time.Hour)) {
		t.Errorf("floor is %v", d.Floor())
	}
}

// TestListedSince has a machine that comes and goes: what counts is since when each
// manifest names it.
func TestListedSince(t *testing.T) {
	a := newRealm(t)
	one, two := ppid(t, 0), ppid(t, 1)
	both := []manifest.Platform{{Name: "one", PPID: one}, {Name: "two", PPID: two}}
	serial := []manifest.Platform{{Name: "one", PPID: one}, {Name: "two", Serial: "0a0b"}}
	dates := []time.Time{a.last.Date}
	for i, platforms := range [][]manifest.Platform{both, both[:1], both, both, serial} {
		dates = append(dates, a.last.Date.Add(time.Hour))
		a.next(t, func(s *manifest.Statement) {
			s.Date, s.Settings.Platforms, s.Settings.RequestWindow = dates[i+1], platforms, 100+i
		})
	}
	for name, row := range map[string]struct {
		machine  verify.Platform
		versions int
		want     time.Time
	}{
		"from the genesis on":    {verify.Platform{PPID: one}, 6, dates[0]},
		"at the genesis":         {verify.Platform{PPID: two}, 1, dates[0]},
		"in the next one too":    {verify.Platform{PPID: two}, 2, dates[0]},
		"taken out":              {verify.Platform{PPID: two}, 3, time.Time{}},
		"back again":             {verify.Platform{PPID: two}, 4, dates[3]},
		"for two manifests":      {verify.Platform{PPID: two}, 5, dates[3]},
		"by another number":      {verify.Platform{PPID: two, Serial: "0a0b"}, 6, dates[3]},
		"by a number it has not": {verify.Platform{PPID: two, Serial: "0a0c"}, 6, time.Time{}},
		"a stranger":             {verify.Platform{PPID: [16]byte{9}}, 6, time.Time{}},
		"no numbers":             {verify.Platform{}, 6, time.Time{}},
	} {
		d, err := OpenDomain(a.last.Domain, a.files[:row.versions], clock)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.ListedSince(row.machine); !got.Equal(row.want) {
			t.Errorf("%s: got %v, want %v", name, got, row.want)
		}
	}
}
