package diff

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

func person(name string, n byte) manifest.Person {
	return manifest.Person{Name: name, Key: bytes.Repeat([]byte{n}, 32)}
}

func terms() *manifest.Terms {
	s := manifest.Defaults(manifest.Production)
	s.Code = []manifest.Code{{Role: "core", MRSigner: manifest.Hash{1}, Product: 1, MinSVN: 2}, {Role: "dkeyserver", MREnclave: manifest.Hash{3}}}
	s.Platforms = []manifest.Platform{{Name: "one", PPID: manifest.PPID{1}}, {Name: "two", Serial: "0a"}}
	s.Accept = []genesis.Acceptance{{Status: "OutOfDate", Advisory: "INTEL-SA-00615", Reason: "why"}}
	s.MinEvaluation, s.DisabledKeySpecs, s.DisabledPaddings = 17, []api.KeySpec{api.ECP224}, []api.PaddingMode{api.PKCS1}
	s.DomainKey = manifest.DomainKey{Version: 4, Compromised: []uint32{1}, Forgotten: []uint32{2}}
	return &manifest.Terms{
		Root: manifest.Seal, Administrator: person("admin", 9), Settings: s,
		Operators:  manifest.Quorum{Threshold: 2, Members: []manifest.Person{person("alice", 1), person("bob", 2), person("carol", 3)}},
		Custodians: &manifest.Quorum{Threshold: 1, Members: []manifest.Person{person("dave", 4)}},
	}
}

// TestWords has each kind of change with what a signer reads.
func TestWords(t *testing.T) {
	set := func(f func(*manifest.Settings)) func(*manifest.Terms) {
		return func(m *manifest.Terms) { f(&m.Settings) }
	}
	for _, row := range []struct {
		name   string
		change func(*manifest.Terms)
		want   []string
	}{
		{"nothing", func(*manifest.Terms) {}, nil},
		{"order", set(func(s *manifest.Settings) { slices.Reverse(s.Platforms) }), []string{"lists: the same entries in another order"}},
		{"root", func(m *manifest.Terms) { m.Root = manifest.HSM }, []string{"WEAKER root: seal -> hsm"}},
		{"simulation", set(func(s *manifest.Settings) { s.AllowSim = true }), []string{"WEAKER settings.allowSim: false -> true"}},
		{"mode", set(func(s *manifest.Settings) { s.Mode = manifest.Development }), []string{"WEAKER settings.mode: production -> development"}},
		{"any platform", set(func(s *manifest.Settings) { s.AnyPlatform = true }), []string{"WEAKER settings.anyPlatform: false -> true"}},
		{"HSM without a TEE", set(func(s *manifest.Settings) { s.HSMWithoutTEE = true }), []string{"WEAKER settings.hsmWithoutTEE: false -> true"}},
		{"enrollment", set(func(s *manifest.Settings) { s.Enrollment = manifest.EnrollmentOpen }), []string{"WEAKER settings.enrollment: closed -> open"}},
		{"audit", set(func(s *manifest.Settings) { s.Audit = manifest.Sync }), []string{"settings.audit: batched -> sync"}},
		{"sealed requests demanded", set(func(s *manifest.Settings) { s.SealedOnly = true }), []string{"settings.sealedOnly: false -> true"}},
		{"longer window", set(func(s *manifest.Settings) { s.RequestWindow = 700 }), []string{"WEAKER settings.requestWindowSeconds: 600 -> 700"}},
		{"shorter window", set(func(s *manifest.Settings) { s.RequestWindow = 60 }), []string{"settings.requestWindowSeconds: 600 -> 60"}},
		{"longer grace", set(func(s *manifest.Settings) { s.TCBGrace, s.CollateralGrace = 721, 1 }), []string{
			"WEAKER settings.tcbGraceHours: 720 -> 721", "WEAKER settings.collateralGraceHours: 0 -> 1"}},
		{"longer lease", set(func(s *manifest.Settings) { s.Lease = 73 }), []string{"WEAKER settings.leaseHours: 72 -> 73"}},
		{"shorter deletion", set(func(s *manifest.Settings) { s.DeletionWindow = 0 }), []string{"WEAKER settings.deletionWindowDays: 7 -> 0"}},
		{"limits", set(func(s *manifest.Settings) { s.Limits = manifest.Limits{RequestsPerSecond: 10, Burst: 20, Keys: 5} }), []string{
			"settings.limits.requestsPerSecond: 2000 -> 10", "settings.limits.burst: 4000 -> 20",
			"settings.limits.keys: 10000 -> 5", "WEAKER settings.limits.secrets: 4000 -> none"}},
		{"higher limit", set(func(s *manifest.Settings) { s.Limits.Burst = 5000 }), []string{"WEAKER settings.limits.burst: 4000 -> 5000"}},
		{"lower number", set(func(s *manifest.Settings) { s.MinEvaluation = 16 }), []string{"WEAKER settings.minEvaluationNumber: 17 -> 16"}},
		{"higher number", set(func(s *manifest.Settings) { s.MinEvaluation = 18 }), []string{"settings.minEvaluationNumber: 17 -> 18"}},
		{"root added", set(func(s *manifest.Settings) { s.TrustRoots = append(s.TrustRoots, "acme") }), []string{"WEAKER settings.trustRoots: acme is added"}},
		{"root removed", set(func(s *manifest.Settings) { s.TrustRoots = nil }), []string{"settings.trustRoots: intel-sgx is removed"}},
		{"simulated root", set(func(s *manifest.Settings) { s.SimRoot = []byte("root") }), []string{
			"WEAKER settings.simRoot: quotes under the root 4813494d137e1631bba301d5acab6e7b for simulated platforms are genuine"}},
		{"key spec on", set(func(s *manifest.Settings) { s.DisabledKeySpecs = nil }), []string{"WEAKER settings.disabledKeySpecs: EH_EC_P224 is removed"}},
		{"padding off", set(func(s *manifest.Settings) { s.DisabledPaddings = append(s.DisabledPaddings, api.PSS) }), []string{"settings.disabledPaddings: EH_RSA_PKCS1_PSS is added"}},
		{"padding on", set(func(s *manifest.Settings) { s.DisabledPaddings = nil }), []string{"WEAKER settings.disabledPaddings: EH_RSA_PKCS1 is removed"}},
		{"code", set(func(s *manifest.Settings) { s.Code[1].MREnclave = manifest.Hash{4} }), []string{
			"ADMITS settings.code: dkeyserver with measurement 04" + strings.Repeat("0", 62), "settings.code: dkeyserver with measurement 03" + strings.Repeat("0", 62) + " is out"}},
		{"role", set(func(s *manifest.Settings) { s.Code[1].Role = "core" }), []string{
			"ADMITS settings.code: core with measurement 03" + strings.Repeat("0", 62), "settings.code: dkeyserver with measurement 03" + strings.Repeat("0", 62) + " is out"}},
		{"older version", set(func(s *manifest.Settings) { s.Code[0].MinSVN = 1 }), []string{
			"WEAKER settings.code: core of signer 01" + strings.Repeat("0", 62) + ", product 1 from version 1 on, before from version 2 on"}},
		{"newer version", set(func(s *manifest.Settings) { s.Code[0].MinSVN = 3 }), []string{
			"settings.code: core of signer 01" + strings.Repeat("0", 62) + ", product 1 from version 3 on, before from version 2 on"}},
		{"platform", set(func(s *manifest.Settings) { s.Platforms[1].Serial = "0b" }), []string{
			`ADMITS settings.platforms: "two" with PCK serial 0b`, `settings.platforms: "two" with PCK serial 0a is out`}},
		{"platform's name", set(func(s *manifest.Settings) { s.Platforms[0].Name = "uno" }), []string{
			`settings.platforms: "one" with PPID 01` + strings.Repeat("0", 30) + ` is called "uno" now`}},
		{"TDX guest", set(func(s *manifest.Settings) {
			s.Code[1] = manifest.Code{Role: "dkeyserver", TDX: manifest.TDXGuest{MRTD: manifest.Register{4}, RTMR3: manifest.Register{5}}}
		}), []string{
			"ADMITS settings.code: dkeyserver in the TDX guest with MRTD 04" + strings.Repeat("0", 94) + ", RTMR0 " + strings.Repeat("0", 96) + ", RTMR1 " + strings.Repeat("0", 96) +
				", RTMR2 " + strings.Repeat("0", 96) + ", RTMR3 05" + strings.Repeat("0", 94) + ", MRCONFIGID " + strings.Repeat("0", 96),
			"settings.code: dkeyserver with measurement 03" + strings.Repeat("0", 62) + " is out"}},
		{"SEV-SNP guest", set(func(s *manifest.Settings) {
			s.Code = append(s.Code, manifest.Code{Role: "core", SNP: manifest.SNPGuest{Measurement: manifest.Register{4}, HostData: manifest.Hash{6}}})
			s.SNPMinTCB = manifest.SNPTCB{Bootloader: 3, SNP: 8, Microcode: 115}
		}), []string{
			"ADMITS settings.code: core in the SEV-SNP guest with measurement 04" + strings.Repeat("0", 94) + ", host data 06" + strings.Repeat("0", 62),
			"ADMITS settings.snpMinTcb: SEV-SNP chips from bootloader 3, TEE 0, SNP 8, microcode 115 on"}},
		{"chip", set(func(s *manifest.Settings) {
			s.Platforms[1] = manifest.Platform{Name: "two", Chip: manifest.ChipID{7}}
		}), []string{
			`ADMITS settings.platforms: "two" with chip id 07` + strings.Repeat("0", 126), `settings.platforms: "two" with PCK serial 0a is out`}},
		{"acceptance", set(func(s *manifest.Settings) { s.Accept[0].Advisory = "INTEL-SA-00657" }), []string{
			"WEAKER settings.accept: OutOfDate for INTEL-SA-00657 is accepted, because: why", "settings.accept: OutOfDate for INTEL-SA-00615 is no longer accepted"}},
		{"reason", set(func(s *manifest.Settings) { s.Accept[0].Reason = "so" }), []string{"settings.accept: OutOfDate for INTEL-SA-00615 is accepted, now because: so"}},
		{"another DomainKey, as one is compromised", set(func(s *manifest.Settings) { s.DomainKey.Version, s.DomainKey.Compromised = 5, []uint32{1, 4} }), []string{
			"settings.domainKey: version 4 -> 5: records are wrapped under it",
			"settings.domainKey: version 4 is compromised: what it wraps and wrapped is to be replaced"}},
		{"DomainKey forgotten", set(func(s *manifest.Settings) { s.DomainKey.Forgotten = []uint32{2, 3} }), []string{
			"settings.domainKey: version 3 IS FORGOTTEN: what it still wraps, in backups too, is lost for good"}},
		{"DomainKey taken back", set(func(s *manifest.Settings) { s.DomainKey = manifest.DomainKey{} }), []string{
			"WEAKER settings.domainKey: version 4 -> 1: records are wrapped under it",
			"WEAKER settings.domainKey: version 1 is no longer compromised", "WEAKER settings.domainKey: version 2 is no longer forgotten"}},
		{"operator more", func(m *manifest.Terms) { m.Operators.Members = append(m.Operators.Members, person("eve", 66)) }, []string{
			"ADMITS operators: eve with key 425ed4e4a36b30ea21b90e21c712c649", "operators: it takes 2 of 3 -> 2 of 4"}},
		{"operator less", func(m *manifest.Terms) { m.Operators.Members = m.Operators.Members[1:] }, []string{
			"operators: alice with key 72cd6e8422c407fb6d098690f1130b7d is out", "operators: it takes 2 of 3 -> 2 of 2"}},
		{"lower threshold", func(m *manifest.Terms) { m.Operators.Threshold = 1 }, []string{"WEAKER operators: it takes 2 of 3 -> 1 of 3"}},
		{"higher threshold", func(m *manifest.Terms) { m.Operators.Threshold = 3 }, []string{"operators: it takes 2 of 3 -> 3 of 3"}},
		{"operator's key under the same name", func(m *manifest.Terms) { m.Operators.Members[0] = person("alice", 66) }, []string{
			"ADMITS operators: alice with key 425ed4e4a36b30ea21b90e21c712c649", "operators: alice with key 72cd6e8422c407fb6d098690f1130b7d is out"}},
		{"names exchanged", func(m *manifest.Terms) {
			m.Operators.Members[0].Name, m.Operators.Members[1].Name = "bob", "alice"
		}, []string{"operators: alice is called bob now, with the same key", "operators: bob is called alice now, with the same key"}},
		{"no custodians", func(m *manifest.Terms) { m.Custodians = nil }, []string{
			"custodians: dave with key 9f4fb68f3e1dac82202f9aa581ce0bbf is out", "custodians: it takes 1 of 1 -> 0 of 0"}},
		{"administrator", func(m *manifest.Terms) { m.Administrator = person("admin", 66) }, []string{
			"ADMITS administrator: admin (key 8c0cc17a04942cc4f8e0fe0b302606d3) -> admin (key 425ed4e4a36b30ea21b90e21c712c649)"}},
	} {
		new := terms()
		row.change(new)
		var got []string
		for _, c := range Terms(terms(), new) {
			got = append(got, c.String())
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: got\n%s\nwant\n%s", row.name, strings.Join(got, "\n"), strings.Join(row.want, "\n"))
		}
	}
}

// TestSNPMinTCB has each way that the least TCB can change.
func TestSNPMinTCB(t *testing.T) {
	was := manifest.SNPTCB{Bootloader: 3, TEE: 1, SNP: 8, Microcode: 115}
	for name, row := range map[string]struct {
		new  manifest.SNPTCB
		want Effect
	}{
		"higher":              {manifest.SNPTCB{Bootloader: 4, TEE: 1, SNP: 8, Microcode: 115}, Stricter},
		"one higher, one not": {manifest.SNPTCB{Bootloader: 4, TEE: 1, SNP: 8, Microcode: 114}, Weaker},
		"TEE lower":           {manifest.SNPTCB{Bootloader: 3, SNP: 8, Microcode: 115}, Weaker},
		"SNP lower":           {manifest.SNPTCB{Bootloader: 3, TEE: 1, SNP: 7, Microcode: 115}, Weaker},
		"bootloader lower":    {manifest.SNPTCB{TEE: 1, SNP: 8, Microcode: 115}, Weaker},
		"none":                {manifest.SNPTCB{}, Stricter},
	} {
		old, new := terms(), terms()
		old.Settings.SNPMinTCB, new.Settings.SNPMinTCB = was, row.new
		if got := Terms(old, new); len(got) != 1 || got[0].Effect != row.want {
			t.Errorf("%s: got %v, want %s", name, got, row.want)
		}
	}
}

// TestBothWays exchanges the sides: what one way is weaker is stricter the other.
func TestBothWays(t *testing.T) {
	old, new := terms(), terms()
	new.Settings = manifest.Defaults(manifest.Development)
	new.Settings.Lease, new.Settings.AnyPlatform, new.Settings.DeletionWindow = 100, true, 1
	weaker := map[string]bool{}
	for _, c := range Terms(old, new) {
		if c.Effect == Weaker {
			weaker[c.Path] = true
		}
	}
	for _, c := range Terms(new, old) {
		if weaker[c.Path] && c.Effect != Stricter {
			t.Errorf("%s: %s back", c.Path, c.Effect)
		}
		delete(weaker, c.Path)
	}
	if len(weaker) != 0 {
		t.Errorf("no way back for %v", weaker)
	}
}

// TestNothingIsHidden changes each field that there is: a signer is shown it.
func TestNothingIsHidden(t *testing.T) {
	if n := everyField(t, reflect.ValueOf(&manifest.Statement{}).Elem(), nil); n < 39 {
		t.Errorf("changed %d fields only", n)
	}
}

// base is a statement with one entry in each list.
func base() *manifest.Statement {
	m := terms()
	m.Settings.SimRoot = []byte("root")
	return &manifest.Statement{DomainKey: []byte("key"), Recovery: &manifest.Recovery{PublicKey: []byte("public"), Commitment: []byte("c")}, Terms: *m}
}

// everyField changes the fields of a struct one at a time, and returns how many.
// What says where the manifest stands in the chain is shown beside the differences.
func everyField(t *testing.T, shape reflect.Value, at []int) (n int) {
	skip := []string{"Format", "Version", "Date", "Domain", "Previous"}
	for i := range shape.NumField() {
		field := shape.Type().Field(i)
		if len(at) == 0 && slices.Contains(skip, field.Name) {
			continue
		}
		if field.Type.Kind() == reflect.Struct {
			n += everyField(t, shape.Field(i), append(at, i))
			continue
		}
		new := base()
		alter(t, reflect.ValueOf(new).Elem().FieldByIndex(append(at, i)))
		n++
		if len(Statements(base(), new)) == 0 {
			t.Errorf("%s: a change of it is not shown", field.Name)
		}
		if k := reflect.ValueOf(new).Elem().FieldByIndex(append(at, i)); k.Kind() == reflect.Slice && k.Type().Elem().Kind() == reflect.Struct {
			n += everyElement(t, field.Name, k.Type().Elem(), append(at, i))
		}
	}
	return n
}

// everyElement changes the fields of the first entry of a list.
func everyElement(t *testing.T, name string, shape reflect.Type, at []int) (n int) {
	for _, f := range reflect.VisibleFields(shape) {
		paths := [][]int{f.Index}
		if f.Type.Kind() == reflect.Struct {
			paths = nil
			for i := range f.Type.NumField() {
				paths = append(paths, append(slices.Clone(f.Index), i))
			}
		}
		for _, path := range paths {
			new := base()
			alter(t, reflect.ValueOf(new).Elem().FieldByIndex(at).Index(0).FieldByIndex(path))
			n++
			if len(Statements(base(), new)) == 0 {
				t.Errorf("%s.%s %v: a change of it is not shown", name, f.Name, path)
			}
		}
	}
	return n
}

// alter gives v another value.
func alter(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int:
		v.SetInt(v.Int() + 1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(v.Uint() + 1)
	case reflect.Array:
		v.Index(0).SetUint(v.Index(0).Uint() ^ 0x80)
	case reflect.Pointer, reflect.Slice:
		v.SetZero()
	default:
		t.Fatalf("cannot change a %s", v.Type())
	}
}
