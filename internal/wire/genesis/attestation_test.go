package genesis

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// certificate makes one of organizations.
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

func accepting(list ...Acceptance) *Attestation { return &Attestation{Accept: list} }

var hardening = Acceptance{"SWHardeningNeeded", "INTEL-SA-00615", "the core does no MMIO"}

// TestAttestationRoundTrip has a known answer for the members of the file.
func TestAttestationRoundTrip(t *testing.T) {
	g := sample()
	g.Attestation = &Attestation{Accept: []Acceptance{hardening}, MinEvaluation: 17}
	b, err := g.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = `  "requestWindowSeconds": 600,
  "attestation": {
    "accept": [
      {
        "status": "SWHardeningNeeded",
        "advisory": "INTEL-SA-00615",
        "reason": "the core does no MMIO"
      }
    ],
    "minEvaluationNumber": 17
  }
}
`
	if !strings.HasSuffix(string(b), want) {
		t.Errorf("Encode: got %s, want it to end in %s", b, want)
	}
	if got, _, err := Parse(b); err != nil || !reflect.DeepEqual(got, g) {
		t.Errorf("Parse: got %+v, %v", got, err)
	}
	g.Attestation, g.SimRoot = nil, certificate(t, simulation)
	if b, err = g.Encode(); err != nil {
		t.Fatal(err)
	}
	if got, _, err := Parse(b); err != nil || !bytes.Equal(got.SimRoot, g.SimRoot) {
		t.Errorf("Parse: got %+v, %v", got, err)
	}
}

// TestReleasedGenesis has files of earlier versions, with the ids that their
// domains have.
func TestReleasedGenesis(t *testing.T) {
	for name, want := range map[string]string{
		"before-attestation.json": "3f42925c34a8fb46bb0287a83d4d7b4946646e2666491836711b7503389ab3c0",
	} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if g, id, err := Parse(b); err != nil || id.String() != want || g.SimRoot != nil || g.Attestation != nil {
			t.Errorf("%s: got %s, %v, want %s", name, id, err, want)
		}
	}
}

func TestAttestationRefusals(t *testing.T) {
	long := strings.Repeat("a", maxReason+1)
	many := make([]Acceptance, maxAccept+1)
	for name, change := range map[string]func(*Genesis){
		"nothing said":            func(g *Genesis) { g.Attestation = &Attestation{} },
		"up to date":              func(g *Genesis) { g.Attestation = accepting(Acceptance{"UpToDate", "INTEL-SA-00615", "r"}) },
		"revoked":                 func(g *Genesis) { g.Attestation = accepting(Acceptance{"Revoked", "INTEL-SA-00615", "r"}) },
		"unknown status":          func(g *Genesis) { g.Attestation = accepting(Acceptance{"outOfDate", "INTEL-SA-00615", "r"}) },
		"no advisory":             func(g *Genesis) { g.Attestation = accepting(Acceptance{"OutOfDate", "", "r"}) },
		"any advisory":            func(g *Genesis) { g.Attestation = accepting(Acceptance{"OutOfDate", "*", "r"}) },
		"no reason":               func(g *Genesis) { g.Attestation = accepting(Acceptance{"OutOfDate", "INTEL-SA-00615", ""}) },
		"long reason":             func(g *Genesis) { g.Attestation = accepting(Acceptance{"OutOfDate", "INTEL-SA-00615", long}) },
		"twice":                   func(g *Genesis) { g.Attestation = accepting(hardening, hardening) },
		"too many":                func(g *Genesis) { g.Attestation = accepting(many...) },
		"root without allowSim":   func(g *Genesis) { g.AllowSim, g.SimRoot = false, certificate(t, simulation) },
		"root that is empty":      func(g *Genesis) { g.SimRoot = []byte{} },
		"root that is none":       func(g *Genesis) { g.SimRoot = []byte("root") },
		"root of nobody":          func(g *Genesis) { g.SimRoot = certificate(t) },
		"root of Intel":           func(g *Genesis) { g.SimRoot = certificate(t, "Intel Corporation") },
		"root of both":            func(g *Genesis) { g.SimRoot = certificate(t, simulation, "Intel Corporation") },
		"root followed by a byte": func(g *Genesis) { g.SimRoot = append(certificate(t, simulation), 0) },
		"root over the limit":     func(g *Genesis) { g.SimRoot = make([]byte, maxSimRoot+1) },
	} {
		g := sample()
		change(&g)
		if b, err := g.Encode(); !errors.Is(err, ErrInvalid) || b != nil {
			t.Errorf("%s: got %q, %v, want ErrInvalid", name, b, err)
		}
	}
}

// TestAttestationOneEncoding refuses what says the same in another way.
func TestAttestationOneEncoding(t *testing.T) {
	good, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, more := range []string{
		`"simRoot": ""`, `"simRoot": null`, `"attestation": null`, `"attestation": {}`,
		"\"attestation\": {\n    \"minEvaluationNumber\": 0\n  }", "\"attestation\": {\n    \"accept\": []\n  }",
		"\"attestation\": {\n    \"minEvaluationNumber\": 1,\n    \"allowDebug\": true\n  }",
	} {
		b := strings.Replace(string(good), "600\n", "600,\n  "+more+"\n", 1)
		if _, _, err := Parse([]byte(b)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", more, err)
		}
	}
	b := strings.Replace(string(good), "600\n", "600,\n  \"attestation\": {\n    \"minEvaluationNumber\": 1\n  }\n", 1)
	if _, _, err := Parse([]byte(b)); err != nil {
		t.Errorf("the pattern of this test: %v", err)
	}
}
