package validate_test

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

func readPolicy(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("testdata/policy.json")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestParsePolicy(t *testing.T) {
	got, err := validate.ParsePolicy([]byte(readPolicy(t)))
	if err != nil {
		t.Fatal(err)
	}
	enclave := validate.Enclave{Name: "dkeyserver"}
	for i := range enclave.MREnclave {
		enclave.MREnclave[i] = 0xcd
	}
	signer := validate.Enclave{Name: "core", ISVProdID: 1, MinISVSVN: 2}
	for i := range signer.MRSigner {
		signer.MRSigner[i] = 0xab
	}
	want := &validate.Policy{
		Enclaves: []validate.Enclave{signer, enclave},
		Platforms: []validate.Platform{
			{Name: "rack 1, node 1", PPID: [16]byte{0x18, 0x69, 0x50, 0xb6, 0xd8, 0xd0, 0x14, 0xd8, 0x9f, 0x0c, 0x14, 0x4d, 0x1d, 0x90, 0xeb, 0xad}},
			{Name: "rack 1, node 2", Serial: "0a1b2c"},
		},
		Accepted:         []validate.Acceptance{{Status: verify.SWHardeningNeeded, Advisory: "INTEL-SA-00615", Reason: "the core does no MMIO"}},
		MinTCBEvaluation: 17, TCBGrace: 45 * 24 * time.Hour, CollateralGrace: 12 * time.Hour,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestPolicyDefaults(t *testing.T) {
	p, err := validate.ParsePolicy([]byte(`{"format":"ehsm-sgx-policy/v1","any_platform":true,"enclaves":[{"name":"x","mrenclave":"` + strings.Repeat("01", 32) + `"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if p.TCBGrace != validate.DefaultTCBGrace || p.CollateralGrace != 0 || p.AllowDebug || p.AllowSim || !p.AnyPlatform || len(p.Accepted) != 0 {
		t.Errorf("got %+v", p)
	}
}

func TestPolicyRefused(t *testing.T) {
	text := readPolicy(t)
	for name, row := range map[string]struct{ old, new string }{
		"not JSON":                   {`{`, ``},
		"unknown member":             {`"format"`, `"allow_all": true, "format"`},
		"member twice":               {`"tcb_grace"`, `"tcb_grace": "1d", "tcb_grace"`},
		"other case":                 {`"format"`, `"Format"`},
		"other format":               {`policy/v1`, `policy/v2`},
		"no enclaves":                {`"enclaves"`, `"x"`},
		"enclaves empty":             {text[strings.Index(text, `"enclaves": [`):strings.Index(text, `"platforms"`)], `"enclaves": [],`},
		"enclave without a name":     {`"name": "core", `, ``},
		"enclave with empty name":    {`"name": "core"`, `"name": ""`},
		"unknown member of enclave":  {`"isvprodid": 1`, `"isvprodid": 1, "debug": true`},
		"both identities":            {`"isvprodid": 1`, `"isvprodid": 1, "mrenclave": "` + strings.Repeat("01", 32) + `"`},
		"no product":                 {`"isvprodid": 1, `, ``},
		"no minimum version":         {`, "min_isvsvn": 2`, ``},
		"product over 65535":         {`"isvprodid": 1`, `"isvprodid": 65536`},
		"short signer":               {strings.Repeat("ab", 32), strings.Repeat("ab", 31)},
		"signer of zeros":            {strings.Repeat("ab", 32), strings.Repeat("00", 32)},
		"measurement of zeros":       {strings.Repeat("cd", 32), strings.Repeat("00", 32)},
		"same enclave twice":         {`{"name": "dkeyserver", "mrenclave": "` + strings.Repeat("cd", 32) + `"}`, `{"name": "y", "mrsigner": "` + strings.Repeat("ab", 32) + `", "isvprodid": 1, "min_isvsvn": 9}`},
		"no platforms":               {text[strings.Index(text, `"platforms": [`):strings.Index(text, `"accept"`)], ``},
		"platforms and any":          {`"platforms"`, `"any_platform": true, "platforms"`},
		"any as text":                {`"platforms"`, `"any_platform": "yes", "platforms"`},
		"platform twice":             {`"pck_serial": "0a1b2c"`, `"ppid": "186950b6d8d014d89f0c144d1d90ebad"`},
		"platform without a name":    {`"name": "rack 1, node 1", `, ``},
		"platform with empty name":   {`"name": "rack 1, node 1"`, `"name": ""`},
		"advisory empty":             {`"INTEL-SA-00615"`, `""`},
		"PPID of zeros":              {`186950b6d8d014d89f0c144d1d90ebad`, strings.Repeat("00", 16)},
		"PPID short":                 {`186950b6d8d014d89f0c144d1d90ebad`, `186950b6`},
		"PPID and serial":            {`"pck_serial"`, `"ppid": "286950b6d8d014d89f0c144d1d90ebad", "pck_serial"`},
		"serial with leading zeros":  {`"0a1b2c"`, `"000a1b2c"`},
		"serial of odd length":       {`"0a1b2c"`, `"a1b2c"`},
		"serial empty":               {`"0a1b2c"`, `""`},
		"serial of 21 bytes":         {`"0a1b2c"`, `"` + strings.Repeat("11", 21) + `"`},
		"accept without a reason":    {`, "reason": "the core does no MMIO"`, ``},
		"accept with empty reason":   {`"reason": "the core does no MMIO"`, `"reason": ""`},
		"accept without an advisory": {`"advisory": "INTEL-SA-00615", `, ``},
		"accept UpToDate":            {`SWHardeningNeeded`, `UpToDate`},
		"accept Revoked":             {`SWHardeningNeeded`, `Revoked`},
		"accept an unknown status":   {`SWHardeningNeeded`, `Anything`},
		"unknown member of accept":   {`"reason"`, `"x": 1, "reason"`},
		"grace without a unit":       {`"45d"`, `"45"`},
		"grace of weeks":             {`"45d"`, `"6w"`},
		"grace of two units":         {`"45d"`, `"45dh"`},
		"grace below zero":           {`"45d"`, `"-1d"`},
		"grace with a plus":          {`"45d"`, `"+1d"`},
		"grace with zeros":           {`"45d"`, `"045d"`},
		"grace empty":                {`"45d"`, `""`},
		"grace of more than a year":  {`"45d"`, `"366d"`},
		"grace as a number":          {`"45d"`, `45`},
		"evaluation as text":         {`17`, `"17"`},
		"text after the policy":      {text, text + "{}"},
		"long name":                  {`"name": "core"`, `"name": "` + strings.Repeat("x", 1025) + `"`},
	} {
		bad := strings.Replace(text, row.old, row.new, 1)
		if bad == text {
			t.Fatalf("%s: %q is not in the file", name, row.old)
		}
		if p, err := validate.ParsePolicy([]byte(bad)); !errors.Is(err, validate.ErrPolicy) || p != nil {
			t.Errorf("%s: got %v, want ErrPolicy", name, err)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(readPolicy(f)))
	f.Add([]byte(`{"format":"ehsm-sgx-policy/v1","enclaves":[],"any_platform":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := validate.ParsePolicy(b)
		if err != nil {
			return
		}
		if len(p.Enclaves) == 0 || len(p.Platforms) == 0 && !p.AnyPlatform {
			t.Errorf("an empty policy was taken: %+v", p)
		}
		for _, e := range p.Enclaves {
			if e.MREnclave == [32]byte{} && e.MRSigner == [32]byte{} {
				t.Errorf("an enclave without identity was taken: %+v", e)
			}
		}
	})
}
