package manifest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
)

// certificate makes a root of organizations.
func certificate(t testing.TB, organizations ...string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: organizations},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<31, 0), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestFormatRefusals has statements that nobody could sign for.
func TestFormatRefusals(t *testing.T) {
	many := func(n int, of func(i int)) {
		for i := range n {
			of(i)
		}
	}
	for _, row := range []struct {
		name   string
		change func(*Statement)
	}{
		{"format", func(s *Statement) { s.Format = "ehsm-manifest/v2" }},
		{"format of a genesis", func(s *Statement) { s.Format = genesis.Format }},
		{"version 0", func(s *Statement) { s.Version = 0 }},
		{"version without previous", func(s *Statement) { s.Version = 2 }},
		{"version with previous only", func(s *Statement) { s.Version, s.Previous = 2, Hash{1} }},
		{"version over the limit", func(s *Statement) { s.Version, s.Previous, s.Domain = maxVersion+1, Hash{1}, Hash{1} }},
		{"genesis with domain", func(s *Statement) { s.Domain = Hash{1} }},
		{"genesis with previous", func(s *Statement) { s.Previous = Hash{1} }},
		{"no date", func(s *Statement) { s.Date = time.Time{} }},
		{"date in a zone", func(s *Statement) { s.Date = s.Date.In(time.FixedZone("", 3600)) }},
		{"date with fraction", func(s *Statement) { s.Date = s.Date.Add(1) }},
		{"date after 9999", func(s *Statement) { s.Date = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }},
		{"no domain key", func(s *Statement) { s.DomainKey = nil }},
		{"domain key of an operator", func(s *Statement) { s.DomainKey = s.Operators.Members[0].Key }},
		{"domain key of the administrator", func(s *Statement) { s.DomainKey = s.Administrator.Key }},
		{"recovery without custodians", func(s *Statement) { s.Custodians = nil }},
		{"digests of fewer custodians", func(s *Statement) { s.Recovery.Digests = make([]byte, 32) }},
		{"endorsement in a genesis", func(s *Statement) { s.Recovery.Endorsement = make([]byte, 64) }},
		{"recovery key too short", func(s *Statement) { s.Recovery.PublicKey = s.Recovery.PublicKey[1:] }},
		{"commitment for another threshold", func(s *Statement) { s.Custodians.Threshold = 2 }},
		{"root", func(s *Statement) { s.Root = "tpm" }},
		{"no operators", func(s *Statement) { s.Operators.Members = nil }},
		{"threshold 0", func(s *Statement) { s.Operators.Threshold = 0 }},
		{"threshold below 0", func(s *Statement) { s.Operators.Threshold = -1 }},
		{"threshold over the members", func(s *Statement) { s.Operators.Threshold = 4 }},
		{"too many operators", func(s *Statement) {
			many(maxPeople, func(i int) {
				s.Operators.Members = append(s.Operators.Members, person(fmt.Sprint("x", i), byte(100+i)))
			})
		}},
		{"operator twice", func(s *Statement) { s.Operators.Members[1].Key = s.Operators.Members[0].Key }},
		{"name twice", func(s *Statement) { s.Operators.Members[1].Name = s.Operators.Members[0].Name }},
		{"name with escape", func(s *Statement) { s.Operators.Members[0].Name = "\x1b[2J" }},
		{"no name", func(s *Statement) { s.Operators.Members[0].Name = "" }},
		{"long name", func(s *Statement) { s.Operators.Members[0].Name = strings.Repeat("a", 65) }},
		{"operator's key too short", func(s *Statement) { s.Operators.Members[0].Key = s.Operators.Members[0].Key[1:] }},
		{"operator's key of zeros", func(s *Statement) { s.Operators.Members[0].Key = make([]byte, 32) }},
		{"administrator is an operator", func(s *Statement) { s.Administrator.Key = s.Operators.Members[0].Key }},
		{"no administrator", func(s *Statement) { s.Administrator = Person{} }},
		{"custodians without members", func(s *Statement) { s.Custodians = &Quorum{Threshold: 1} }},
		{"custodian with an operator's key", func(s *Statement) { s.Custodians.Members[0].Key = s.Operators.Members[0].Key }},
		{"custodian twice", func(s *Statement) { s.Custodians.Members[1].Key = s.Custodians.Members[0].Key }},

		{"mode", func(s *Statement) { s.Settings.Mode = "test" }},
		{"no mode", func(s *Statement) { s.Settings.Mode = "" }},
		{"enrollment", func(s *Statement) { s.Settings.Enrollment = "" }},
		{"audit", func(s *Statement) { s.Settings.Audit = "none" }},
		{"simulation in production", func(s *Statement) { s.Settings.AllowSim = true }},
		{"HSM without a TEE in production", func(s *Statement) { s.Root, s.Settings.HSMWithoutTEE = HSM, true }},
		{"HSM without a TEE in production, with simulation", func(s *Statement) {
			s.Root, s.Settings.HSMWithoutTEE, s.Settings.AllowSim = HSM, true, true
		}},
		{"HSM without a TEE nor simulation", func(s *Statement) {
			s.Root, s.Settings.HSMWithoutTEE, s.Settings.Mode, s.Settings.AllowSim = HSM, true, Development, false
		}},
		{"HSM without a TEE nor an HSM", func(s *Statement) {
			s.Settings.HSMWithoutTEE, s.Settings.Mode, s.Settings.AllowSim = true, Development, true
		}},
		{"open enrollment in production", func(s *Statement) { s.Settings.Enrollment = EnrollmentOpen }},
		{"sealed requests with open enrollment", func(s *Statement) {
			s.Settings.Mode, s.Settings.Enrollment, s.Settings.SealedOnly = Development, EnrollmentOpen, true
		}},
		{"no roots in production", func(s *Statement) { s.Settings.TrustRoots = nil }},
		{"unknown root", func(s *Statement) { s.Settings.TrustRoots = []string{"acme"} }},
		{"root twice", func(s *Statement) { s.Settings.TrustRoots = []string{IntelSGX, IntelSGX} }},
		{"simulated root in production", func(s *Statement) { s.Settings.SimRoot = certificate(t, "SIMULATION - NOT INTEL") }},
		{"simulated root that could be Intel's", func(s *Statement) {
			s.Settings.Mode, s.Settings.AllowSim, s.Settings.SimRoot = Development, true, certificate(t, "Intel Corporation")
		}},
		{"no request window", func(s *Statement) { s.Settings.RequestWindow = 0 }},
		{"request window of a day", func(s *Statement) { s.Settings.RequestWindow = 86400 }},
		{"grace below 0", func(s *Statement) { s.Settings.TCBGrace = -1 }},
		{"grace of two years", func(s *Statement) { s.Settings.CollateralGrace = 2 * 365 * 24 }},
		{"deletion window of a year", func(s *Statement) { s.Settings.DeletionWindow = 365 }},
		{"no lease", func(s *Statement) { s.Settings.Lease = 0 }},
		{"endless lease", func(s *Statement) { s.Settings.Lease = 1 << 30 }},
		{"requests without a burst", func(s *Statement) { s.Settings.Limits = Limits{RequestsPerSecond: 10} }},
		{"burst without requests", func(s *Statement) { s.Settings.Limits = Limits{Burst: 10} }},
		{"limit below 0", func(s *Statement) { s.Settings.Limits = Limits{Keys: -1} }},
		{"more requests than a core can count", func(s *Statement) { s.Settings.Limits = Limits{RequestsPerSecond: 1, Burst: maxRate + 1} }},
		{"more keys than a listing has", func(s *Statement) { s.Settings.Limits.Keys = maxKeys + 1 }},
		{"more secrets than a listing has", func(s *Statement) { s.Settings.Limits.Secrets = maxSecrets + 1 }},
		{"unknown key spec", func(s *Statement) { s.Settings.DisabledKeySpecs = []api.KeySpec{"EH_RSA_1024"} }},
		{"no padding switched off", func(s *Statement) { s.Settings.DisabledPaddings = []api.PaddingMode{api.NoPadding} }},
		{"padding twice", func(s *Statement) { s.Settings.DisabledPaddings = []api.PaddingMode{api.OAEP, api.OAEP} }},
		{"accepted without reason", func(s *Statement) { s.Settings.Accept[0].Reason = "" }},
		{"reason that turns the writing", func(s *Statement) { s.Settings.Accept[0].Reason = "fine \u202eenif ton" }},
		{"reason of two lines", func(s *Statement) { s.Settings.Accept[0].Reason = "fine\nallowSim false" }},
		{"accepted revocation", func(s *Statement) { s.Settings.Accept[0].Status = "Revoked" }},

		{"unknown role", func(s *Statement) { s.Settings.Code[0].Role = "manager" }},
		{"code without identity", func(s *Statement) { s.Settings.Code[0] = Code{Role: RoleCore} }},
		{"code with both identities", func(s *Statement) { s.Settings.Code[0].MREnclave = Hash{1} }},
		{"measurement with version", func(s *Statement) { s.Settings.Code[1].MinSVN = 1 }},
		{"signer without product", func(s *Statement) { s.Settings.Code[0].Product = 0 }},
		{"one program in two roles", func(s *Statement) {
			c := s.Settings.Code[0]
			c.Role, c.MinSVN = RoleDKeyServer, 9
			s.Settings.Code = append(s.Settings.Code, c)
		}},
		{"guest of both kinds", func(s *Statement) {
			s.Settings.SNPMinTCB = SNPTCB{SNP: 8}
			s.Settings.Code[1] = Code{Role: RoleCore, TDX: TDXGuest{MRTD: Register{1}}, SNP: SNPGuest{Measurement: Register{1}}}
		}},
		{"guest that is an enclave", func(s *Statement) { s.Settings.Code[1].TDX.MRTD = Register{1} }},
		{"guest with a signer", func(s *Statement) { s.Settings.Code[0].TDX.MRTD = Register{1} }},
		{"guest with a version", func(s *Statement) {
			s.Settings.Code[1] = Code{Role: RoleCore, TDX: TDXGuest{MRTD: Register{1}}, MinSVN: 1}
		}},
		{"guest with a product", func(s *Statement) {
			s.Settings.Code[1] = Code{Role: RoleCore, TDX: TDXGuest{MRTD: Register{1}}, Product: 1}
		}},
		{"TDX guest without mrtd", func(s *Statement) {
			s.Settings.Code[1] = Code{Role: RoleCore, TDX: TDXGuest{RTMR0: Register{1}}}
		}},
		{"SEV-SNP guest without measurement", func(s *Statement) {
			s.Settings.SNPMinTCB = SNPTCB{SNP: 8}
			s.Settings.Code[1] = Code{Role: RoleCore, SNP: SNPGuest{HostData: Hash{1}}}
		}},
		{"SEV-SNP guest without a least TCB", func(s *Statement) {
			s.Settings.Code[1] = Code{Role: RoleCore, SNP: SNPGuest{Measurement: Register{1}}}
		}},
		{"guest twice in a role", func(s *Statement) {
			c := Code{Role: RoleCore, TDX: TDXGuest{MRTD: Register{1}}}
			s.Settings.Code = append(s.Settings.Code, c, c)
		}},
		{"platform with PPID and chip", func(s *Statement) { s.Settings.Platforms[0].Chip = ChipID{1} }},
		{"platform with serial and chip", func(s *Statement) { s.Settings.Platforms[1].Chip = ChipID{1} }},
		{"chip twice", func(s *Statement) {
			s.Settings.Platforms[0] = Platform{Name: "a", Chip: ChipID{1}}
			s.Settings.Platforms[1] = Platform{Name: "b", Chip: ChipID{1}}
		}},
		{"too much code", func(s *Statement) {
			many(maxCode, func(i int) {
				s.Settings.Code = append(s.Settings.Code, Code{Role: RoleCore, MREnclave: Hash{99, byte(i)}})
			})
		}},
		{"list and any platform", func(s *Statement) { s.Settings.AnyPlatform = true }},
		{"platform without number", func(s *Statement) { s.Settings.Platforms[0] = Platform{Name: "a"} }},
		{"platform with two numbers", func(s *Statement) { s.Settings.Platforms[0].Serial = "0a" }},
		{"platform without name", func(s *Statement) { s.Settings.Platforms[0].Name = "" }},
		{"platform's name with escape", func(s *Statement) { s.Settings.Platforms[0].Name = "\x1b[2J" }},
		{"serial in capitals", func(s *Statement) { s.Settings.Platforms[1].Serial = "0A1B" }},
		{"serial with zeros", func(s *Statement) { s.Settings.Platforms[1].Serial = "00a1" }},
		{"serial too long", func(s *Statement) { s.Settings.Platforms[1].Serial = strings.Repeat("ab", 21) }},
		{"platform twice", func(s *Statement) { s.Settings.Platforms[1] = Platform{Name: "other", PPID: PPID{1}} }},
		{"platform's name twice", func(s *Statement) { s.Settings.Platforms[1].Name = "node 1" }},
		{"too many platforms", func(s *Statement) {
			many(maxPlatforms, func(i int) {
				s.Settings.Platforms = append(s.Settings.Platforms, Platform{Name: fmt.Sprint(i), PPID: PPID{9, byte(i), byte(i >> 8)}})
			})
		}},
	} {
		m := first()
		row.change(&m.Statement)
		if b, err := m.Encode(); !errors.Is(err, ErrInvalid) || b != nil {
			t.Errorf("%s: got %q, %v, want ErrInvalid", row.name, b, err)
		}
	}
}

// TestSignatureListRefusals has lists of signatures that Encode does not write.
func TestSignatureListRefusals(t *testing.T) {
	for name, change := range map[string]func(*Manifest){
		"no list":         func(m *Manifest) { m.Signatures = nil },
		"twice":           func(m *Manifest) { m.Signatures = append(m.Signatures[:1:1], m.Signatures[0]) },
		"another order":   func(m *Manifest) { m.Signatures[0], m.Signatures[1] = m.Signatures[1], m.Signatures[0] },
		"short key":       func(m *Manifest) { m.Signatures[0].Key = m.Signatures[0].Key[1:] },
		"short signature": func(m *Manifest) { m.Signatures[0].Signature = m.Signatures[0].Signature[1:] },
		"no signature":    func(m *Manifest) { m.Signatures[0].Signature = nil },
		"too many": func(m *Manifest) {
			m.Signatures = nil
			for i := range maxPeople + 1 {
				m.Signatures = append(m.Signatures, Signature{append(make([]byte, 31), byte(i)), make([]byte, 64)})
			}
		},
	} {
		m := first()
		signed(t, m, 1, 2)
		change(m)
		if _, err := m.Encode(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

// TestOneEncoding refuses files that say the same in another way.
func TestOneEncoding(t *testing.T) {
	good := string(signed(t, first(), 1, 2))
	for name, edit := range map[string][2]string{
		"space":           {"{\n", "{ \n"},
		"member twice":    {`      "allowSim": false,` + "\n", `      "allowSim": true,` + "\n" + `      "allowSim": false,` + "\n"},
		"other case":      {`"allowSim"`, `"AllowSim"`},
		"unknown member":  {`      "allowSim"`, `      "allowDebug": true,` + "\n" + `      "allowSim"`},
		"null":            {`"minEvaluationNumber": 17`, `"minEvaluationNumber": null`},
		"exponent":        {`"leaseHours": 72`, `"leaseHours": 7.2e1`},
		"hex in capitals": {`"0100`, `"0A00`},
		"short hex":       {`"ppid": "01`, `"ppid": "`},
		"escaped":         {"<&>", `\u003c&>`},
		"zone":            {`05Z"`, `05+00:00"`},
		"empty list":      {`      "trustRoots": [`, `      "simRoot": "",` + "\n" + `      "trustRoots": [`},
	} {
		b := strings.Replace(good, edit[0], edit[1], 1)
		if b == good {
			t.Fatalf("%s: nothing is edited", name)
		}
		if _, err := Parse([]byte(b)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	for name, b := range map[string]string{
		"empty": "", "null": "null", "list": "[]", "two": good + good, "cut": good[:len(good)-2], "byte more": good + "\n",
		"too long": good + strings.Repeat(" ", maxSize), "invalid UTF-8": strings.Replace(good, "MMIO", "MM\xffO", 1),
	} {
		if _, err := Parse([]byte(b)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	d, err := draft().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(d); !errors.Is(err, ErrInvalid) {
		t.Errorf("draft as manifest: got %v", err)
	}
	if _, err := ParseDraft([]byte(good)); !errors.Is(err, ErrInvalid) {
		t.Errorf("manifest as draft: got %v", err)
	}
	for name, change := range map[string]func(*Draft){
		"format": func(d *Draft) { d.Format = Format }, "terms": func(d *Draft) { d.Root = "" },
	} {
		d := draft()
		change(d)
		if _, err := d.Encode(); !errors.Is(err, ErrInvalid) {
			t.Errorf("draft with another %s: got %v", name, err)
		}
	}
}

func TestGenesisRefusals(t *testing.T) {
	for _, row := range []struct {
		name string
		file func() []byte
		want error
	}{
		{"unsigned", func() []byte { return signed(t, first()) }, ErrQuorum},
		{"one signature short", func() []byte { return signed(t, first(), 2) }, ErrQuorum},
		{"signed by the administrator", func() []byte { return signed(t, first(), 1, 2, 9) }, ErrSigner},
		{"signed by the domain key", func() []byte { return signed(t, first(), 8) }, ErrSigner},
		{"later manifest", func() []byte { return signed(t, follow(t, begin(t), nil), 1, 2) }, ErrVersion},
		{"signature of another genesis", func() []byte {
			other, m := first(), first()
			other.Statement.Date = other.Statement.Date.Add(time.Second)
			signed(t, other, 1, 2)
			m.Signatures = other.Signatures
			return signed(t, m)
		}, ErrSignature},
		{"draft", func() []byte { b, _ := draft().Encode(); return b }, ErrInvalid},
		{"nothing", func() []byte { return nil }, ErrInvalid},
	} {
		if s, err := Open(row.file()); !errors.Is(err, row.want) || s != nil {
			t.Errorf("%s: got %+v, %v, want %v", row.name, s, err, row.want)
		}
	}
}

// TestChainRefusals has manifests that do not follow the genesis of begin.
func TestChainRefusals(t *testing.T) {
	now := made.Add(2 * time.Hour)
	for _, row := range []struct {
		name    string
		change  func(*Statement)
		signers []byte
		want    error
	}{
		{"same version", func(n *Statement) { n.Version = 1; n.Domain, n.Previous = Hash{}, Hash{} }, []byte{1, 2}, ErrDomain},
		{"other domain", func(n *Statement) { n.Domain[0] ^= 1 }, []byte{1, 2}, ErrDomain},
		{"other predecessor", func(n *Statement) { n.Previous[31] ^= 1 }, []byte{1, 2}, ErrPrevious},
		{"gap after another", func(n *Statement) { n.Version, n.Previous = 9, Hash{1} }, []byte{1, 2}, ErrPrevious},
		{"earlier date", func(n *Statement) { n.Date = made.Add(-time.Second) }, []byte{1, 2}, ErrDate},
		{"date ahead of the clock", func(n *Statement) { n.Date = now.Add(maxAhead + time.Second) }, []byte{1, 2}, ErrDate},
		{"other domain key", func(n *Statement) { n.DomainKey = key(77).Public().(ed25519.PublicKey) }, []byte{1, 2}, ErrFixed},
		{"other root", func(n *Statement) { n.Root = HSM }, []byte{1, 2}, ErrFixed},
		{"other administrator", func(n *Statement) { n.Administrator = person("eve", 66) }, []byte{1, 2}, ErrFixed},
		{"other recovery key", func(n *Statement) {
			n.Recovery = &Recovery{PublicKey: bytes.Repeat([]byte{1}, 1216), Commitment: n.Recovery.Commitment}
		}, []byte{1, 2}, ErrRecovery},
		{"no recovery key", func(n *Statement) { n.Recovery = nil }, []byte{1, 2}, ErrRecovery},
		{"other custodians", func(n *Statement) { n.Custodians = &Quorum{1, []Person{custodian("eve", 66)}} }, []byte{1, 2}, ErrRecovery},
		{"other custodians, no recovery key", func(n *Statement) {
			n.Custodians, n.Recovery = &Quorum{1, []Person{custodian("eve", 66)}}, nil
		}, []byte{1, 2}, ErrRecovery},
		{"recovery key that no TEE endorses", func(n *Statement) {
			n.Custodians = &Quorum{1, []Person{custodian("dave", 4)}}
			n.Recovery = &Recovery{PublicKey: bytes.Repeat([]byte{1}, 1216), Commitment: n.Recovery.Commitment}
		}, []byte{1, 2}, ErrEndorsed},
		{"recovery key endorsed for others", func(n *Statement) {
			s := begin(t)
			n.Recovery = endorsed(s, s.Custodians, 8)
			n.Custodians = &Quorum{1, []Person{custodian("eve", 66)}}
		}, []byte{1, 2}, ErrEndorsed},
		{"recovery key endorsed in another domain", func(n *Statement) {
			n.Custodians = &Quorum{1, []Person{custodian("eve", 66)}}
			n.Recovery = endorsed(&State{Domain: [32]byte{1}}, n.Custodians, 8)
		}, []byte{1, 2}, ErrEndorsed},
		{"unsigned", nil, nil, ErrQuorum},
		{"one signature short", nil, []byte{3}, ErrQuorum},
		{"stranger", nil, []byte{66}, ErrSigner},
		{"stranger beside a quorum", nil, []byte{1, 2, 66}, ErrSigner},
		{"administrator", nil, []byte{1, 9}, ErrSigner},
		{"the operators it brings", func(n *Statement) {
			n.Operators = Quorum{2, []Person{person("eve", 66), person("mallory", 67)}}
		}, []byte{66, 67}, ErrSigner},
		{"the threshold it brings", func(n *Statement) { n.Operators.Threshold = 1 }, []byte{1}, ErrQuorum},
	} {
		s := begin(t)
		m := follow(t, s, row.change)
		if got, err := s.Next(signed(t, m, row.signers...), now); !errors.Is(err, row.want) || got != nil {
			t.Errorf("%s: got %+v, %v, want %v", row.name, got, err, row.want)
		}
		if leads := s.Leads(m, now); (leads == nil) != (row.want == ErrSigner || row.want == ErrQuorum) {
			t.Errorf("%s: Leads: got %v", row.name, leads)
		}
	}
}

// TestReplay refuses manifests that were in force once, and forks.
func TestReplay(t *testing.T) {
	one := begin(t)
	second := signed(t, follow(t, one, nil), 1, 2)
	two, err := one.Next(second, made.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	third := signed(t, follow(t, two, func(n *Statement) { n.Version = 7 }), 2, 3)
	three, err := two.Next(third, made.Add(2*time.Hour))
	if err != nil || three.Version != 7 || three.Domain != one.Domain {
		t.Fatalf("got %+v, %v", three, err)
	}
	fork := signed(t, follow(t, one, func(n *Statement) { n.Version, n.Settings.Lease = 8, 1 }), 1, 2)
	inserted := signed(t, follow(t, two, func(n *Statement) { n.Version = 5 }), 1, 2)
	for _, row := range []struct {
		name string
		s    *State
		file []byte
		want error
	}{
		{"itself", two, second, ErrVersion},
		{"an older one", three, second, ErrVersion},
		{"the genesis", three, signed(t, first(), 1, 2), ErrDomain},
		{"one left out", one, third, ErrPrevious},
		{"a fork", two, fork, ErrPrevious},
		{"a version left out", three, inserted, ErrVersion},
	} {
		if _, err := row.s.Next(row.file, time.Time{}); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
	if _, err := openChain(signed(t, first(), 1, 2), third, second); !errors.Is(err, ErrPrevious) {
		t.Errorf("openChain: got %v, want ErrPrevious", err)
	}
	if s, err := Trust(third); err != nil || s.Domain != one.Domain || s.Hash != three.Hash {
		t.Errorf("Trust: got %+v, %v", s, err)
	}
	if _, err := Trust(third[1:]); !errors.Is(err, ErrInvalid) {
		t.Errorf("Trust: got %v, want ErrInvalid", err)
	}
}

// TestTampering flips a bit in every third byte of a signed manifest.
func TestTampering(t *testing.T) {
	m := first()
	m.Statement.Custodians, m.Statement.Recovery = nil, nil
	s, err := Open(signed(t, m, 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	good := signed(t, follow(t, s, func(n *Statement) { n.Settings.Lease = 24 }), 1, 2)
	if _, err := s.Next(good, time.Time{}); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(good); i += 3 {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := s.Next(bad, time.Time{}); err == nil {
			t.Errorf("byte %d: %q for %q is accepted", i, bad[i], good[i])
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(signed(f, first(), 1, 2))
	f.Add(signed(f, follow(f, begin(f), nil), 3))
	d, _ := draft().Encode()
	f.Add(d)
	f.Add([]byte(`{"format":"ehsm-genesis/v1"}`))
	s := begin(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := Parse(b); err == nil {
			if again, err := m.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Errorf("two encodings of one manifest: %q and %q, %v", b, again, err)
			}
		}
		if d, err := ParseDraft(b); err == nil {
			if again, err := d.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Errorf("two encodings of one draft: %q and %q, %v", b, again, err)
			}
		}
		if n, err := s.Next(b, time.Time{}); err == nil && n.Hash == s.Hash {
			t.Error("a manifest follows itself")
		}
		Open(b)
		Trust(b)
	})
}

func FuzzParsePublic(f *testing.F) {
	for _, d := range Duties() {
		f.Add([]byte(Person{"a", bytes.Repeat([]byte{1}, d.KeySize())}.PublicText(d)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, d, err := ParsePublic(b); err == nil && p.PublicText(d) != string(b) {
			t.Errorf("two texts of one key: %q and %q", b, p.PublicText(d))
		}
	})
}
