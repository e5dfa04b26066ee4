// Package deploy holds tests only: they refuse insecure enclave configurations.
package deploy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

const (
	egoFile     = "ego/enclave.json"
	gramineFile = "gramine/ehsm-core.manifest.template"
	domainDir   = "/var/lib/ehsm/domain"
)

// programSVN is the security version that cmd/ehsm-core is built with.
func programSVN(t *testing.T) int {
	t.Helper()
	m := regexp.MustCompile(`(?m)^const svn = (\d+)$`).FindSubmatch(file(t, "../cmd/ehsm-core/main.go"))
	if m == nil {
		t.Fatal("cmd/ehsm-core has no constant svn")
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func file(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rule checks the value of one setting.
type rule func(v any) error

func is(want any) rule {
	return func(v any) error {
		if !reflect.DeepEqual(v, want) {
			return fmt.Errorf("is %v, want %v", v, want)
		}
		return nil
	}
}

func matches(pattern string) rule {
	re := regexp.MustCompile("^(?:" + pattern + ")$")
	return func(v any) error {
		if s, ok := v.(string); !ok || !re.MatchString(s) {
			return fmt.Errorf("is %v, want %s", v, pattern)
		}
		return nil
	}
}

func between(least, most int64) rule {
	return func(v any) error {
		if n, ok := v.(int64); !ok || n < least || n > most {
			return fmt.Errorf("is %v, want %d to %d", v, least, most)
		}
		return nil
	}
}

// env are the variables of the program in an enclave, all of them required.
func env(platform string) map[string]rule {
	return map[string]rule{
		"EHSM_CORE_PLATFORM": is(platform),
		"EHSM_CORE_LISTEN":   matches(`tcp:127\.0\.0\.1:\d+`),
		"EHSM_CORE_DOMAIN":   is("/domain"),
		"GOMEMLIMIT":         matches(`\d+MiB`),
	}
}

// apply checks settings against rules. Each setting needs a rule, so a new or
// misspelled one is refused, and each rule a setting, so no default is relied on.
func apply(rules map[string]rule, settings map[string]any) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if check, ok := rules[name]; !ok {
			errs = append(errs, fmt.Errorf("%s: no rule allows it", name))
		} else if err := check(settings[name]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		if _, ok := settings[name]; !ok {
			errs = append(errs, fmt.Errorf("%s: missing", name))
		}
	}
	return errors.Join(errs...)
}

func gramineRules(svn int) map[string]rule {
	rules := map[string]rule{
		"loader.entrypoint.uri":        is("file:{{ gramine.libos }}"),
		"libos.entrypoint":             is("/ehsm-core"),
		"loader.argv":                  is([]any{"ehsm-core"}),
		"loader.log_level":             is("error"),
		"loader.env.GODEBUG":           is("asyncpreemptoff=1"),
		"sys.enable_sigterm_injection": is(true),
		"sys.disallow_subprocesses":    is(true),
		"sgx.debug":                    is(false),
		"sgx.isvprodid":                is(int64(tee.ProductCore)),
		"sgx.isvsvn":                   is(int64(svn)),
		"sgx.remote_attestation":       is("dcap"),
		"sgx.enclave_size":             matches("[1-9]G"),
		"sgx.edmm_enable":              is(false),
		"sgx.max_threads":              between(16, 256),
		"sgx.file_check_policy":        is("strict"),
		"sgx.trusted_files":            is([]any{"file:{{ gramine.libos }}", "file:{{ gramine.runtimedir() }}/", "file:ehsm-core"}),
		"sgx.allowed_files":            is([]any{"file:" + domainDir + "/"}),
		"fs.mounts": is([]any{
			map[string]any{"path": "/lib64", "uri": "file:{{ gramine.runtimedir() }}"},
			map[string]any{"path": "/ehsm-core", "uri": "file:ehsm-core"},
			map[string]any{"path": "/domain", "uri": "file:" + domainDir},
		}),
	}
	for name, r := range env("gramine") {
		rules["loader.env."+name] = r
	}
	return rules
}

// checkGramine refuses a manifest that is not known to be safe. Expressions of
// the template are in strings only, so it is TOML as it stands.
func checkGramine(b []byte, svn int) error {
	var tree map[string]any
	if _, err := toml.Decode(string(b), &tree); err != nil {
		return err
	}
	settings := map[string]any{}
	flatten("", tree, settings)
	return apply(gramineRules(svn), settings)
}

// flatten names the leaves of nested tables by their path.
func flatten(prefix string, tree map[string]any, out map[string]any) {
	for name, v := range tree {
		if sub, ok := v.(map[string]any); ok {
			flatten(prefix+name+".", sub, out)
			continue
		}
		out[prefix+name] = v
	}
}

// checkEGo refuses an enclave.json that is not known to be safe.
func checkEGo(b []byte, svn int) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var settings map[string]any
	if err := d.Decode(&settings); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("bytes follow")
	}
	number := func(n int) rule { return is(json.Number(strconv.Itoa(n))) }
	return apply(map[string]rule{
		"exe":             is("ehsm-core"),
		"key":             is("signing-key.pem"),
		"debug":           is(false),
		"executableHeap":  is(false),
		"productID":       number(int(tee.ProductCore)),
		"securityVersion": number(svn),
		"heapSize":        is(json.Number("2048")),
		"files":           is([]any{}),
		"mounts":          is([]any{map[string]any{"source": domainDir, "target": "/domain", "type": "hostfs", "readOnly": true}}),
		"env":             checkEnv,
	}, settings)
}

// checkEnv wants every variable once, with a value that is written here.
func checkEnv(v any) error {
	list, _ := v.([]any)
	settings := map[string]any{}
	for _, e := range list {
		entry, _ := e.(map[string]any)
		name, _ := entry["name"].(string)
		value, ok := entry["value"]
		if _, twice := settings[name]; twice || !ok || len(entry) != 2 {
			return fmt.Errorf("entry %v: want a name and a value, once", e)
		}
		settings[name] = value
	}
	return apply(env("ego"), settings)
}

func TestConfigurations(t *testing.T) {
	svn := programSVN(t)
	if err := checkGramine(file(t, gramineFile), svn); err != nil {
		t.Errorf("%s: %v", gramineFile, err)
	}
	if err := checkEGo(file(t, egoFile), svn); err != nil {
		t.Errorf("%s: %v", egoFile, err)
	}
}

// TestMutatedConfigurations makes each file insecure in one place.
func TestMutatedConfigurations(t *testing.T) {
	svn := programSVN(t)
	for _, row := range []struct {
		name     string
		check    func([]byte, int) error
		file     string
		old, new string // empty old: new is put before everything
		text     string
	}{
		{"gramine: debug", checkGramine, gramineFile, "sgx.debug = false", "sgx.debug = true", "sgx.debug: is true"},
		{"gramine: debug as text", checkGramine, gramineFile, "sgx.debug = false", `sgx.debug = "false"`, "sgx.debug"},
		{"gramine: no debug line", checkGramine, gramineFile, "sgx.debug = false", "", "sgx.debug: missing"},
		{"gramine: host arguments", checkGramine, gramineFile, "", "loader.insecure__use_cmdline_argv = true", "no rule allows it"},
		{"gramine: arguments from a file", checkGramine, gramineFile, "", `loader.argv_src_file = "file:args"`, "no rule allows it"},
		{"gramine: other arguments", checkGramine, gramineFile, `["ehsm-core"]`, `["ehsm-core", "x"]`, "loader.argv"},
		{"gramine: no arguments", checkGramine, gramineFile, `loader.argv = ["ehsm-core"]`, "", "loader.argv: missing"},
		{"gramine: host environment", checkGramine, gramineFile, "", "loader.insecure__use_host_env = true", "no rule allows it"},
		{"gramine: environment from a file", checkGramine, gramineFile, "", `loader.env_src_file = "file:env"`, "no rule allows it"},
		{"gramine: variable of the host", checkGramine, gramineFile, `loader.env.EHSM_CORE_PLATFORM = "gramine"`, "loader.env.EHSM_CORE_PLATFORM = { passthrough = true }", "no rule allows it"},
		{"gramine: one more variable", checkGramine, gramineFile, "", `loader.env.LD_PRELOAD = "/domain/x.so"`, "no rule allows it"},
		{"gramine: simulated platform", checkGramine, gramineFile, `PLATFORM = "gramine"`, `PLATFORM = "sim"`, "EHSM_CORE_PLATFORM"},
		{"gramine: reached from outside", checkGramine, gramineFile, "tcp:127.0.0.1:9101", "tcp:0.0.0.0:9101", "EHSM_CORE_LISTEN"},
		{"gramine: tracing", checkGramine, gramineFile, "asyncpreemptoff=1", "asyncpreemptoff=1,gctrace=1", "GODEBUG"},
		{"gramine: address randomization", checkGramine, gramineFile, "", "loader.insecure__disable_aslr = true", "no rule allows it"},
		{"gramine: key in the manifest", checkGramine, gramineFile, "", `fs.insecure__keys.default = "ffeeddccbbaa99887766554433221100"`, "no rule allows it"},
		{"gramine: eventfd of the host", checkGramine, gramineFile, "", "sys.insecure__allow_eventfd = true", "no rule allows it"},
		{"gramine: exitless calls", checkGramine, gramineFile, "", "sgx.insecure__rpc_thread_num = 8", "no rule allows it"},
		{"gramine: seal key without DEBUG", checkGramine, gramineFile, "", `sgx.seal_key.flags_mask = "0x0"`, "no rule allows it"},
		{"gramine: profiling", checkGramine, gramineFile, "", `sgx.profile.enable = "all"`, "no rule allows it"},
		{"gramine: statistics", checkGramine, gramineFile, "", "sgx.enable_stats = true", "no rule allows it"},
		{"gramine: talkative", checkGramine, gramineFile, `log_level = "error"`, `log_level = "trace"`, "loader.log_level"},
		{"gramine: names of the host", checkGramine, gramineFile, "", "sys.enable_extra_runtime_domain_names_conf = true", "no rule allows it"},
		{"gramine: no attestation", checkGramine, gramineFile, `"dcap"`, `"none"`, "sgx.remote_attestation"},
		{"gramine: no product", checkGramine, gramineFile, "sgx.isvprodid = 1", "", "sgx.isvprodid: missing"},
		{"gramine: other product", checkGramine, gramineFile, "sgx.isvprodid = 1", "sgx.isvprodid = 2", "sgx.isvprodid"},
		{"gramine: no version", checkGramine, gramineFile, "sgx.isvsvn = 1", "", "sgx.isvsvn: missing"},
		{"gramine: other version", checkGramine, gramineFile, "sgx.isvsvn = 1", "sgx.isvsvn = 0", "sgx.isvsvn"},
		{"gramine: all files", checkGramine, gramineFile, `"strict"`, `"allow_all_but_log"`, "sgx.file_check_policy"},
		{"gramine: unmeasured program", checkGramine, gramineFile, "  \"file:ehsm-core\",\n", "", "sgx.trusted_files"},
		{"gramine: more files of the host", checkGramine, gramineFile, `["file:/var/lib/ehsm/domain/"]`, `["file:/var/lib/ehsm/domain/", "file:/"]`, "sgx.allowed_files"},
		{"gramine: mount of the host", checkGramine, gramineFile, "  { path = \"/ehsm-core\"", "  { path = \"/etc\", uri = \"file:/etc\" },\n  { path = \"/ehsm-core\"", "fs.mounts"},
		{"gramine: seal key used twice", checkGramine, gramineFile, `{ path = "/domain", uri`, `{ type = "encrypted", key_name = "_sgx_mrsigner", path = "/domain", uri`, "fs.mounts"},
		{"gramine: no threads", checkGramine, gramineFile, "max_threads = 64", "max_threads = 4", "sgx.max_threads"},
		{"gramine: no TOML", checkGramine, gramineFile, "", "sgx.debug = false = true", "toml"},
		{"gramine: said twice", checkGramine, gramineFile, "", "sgx.debug = false", "toml"},

		{"ego: debug", checkEGo, egoFile, `"debug": false`, `"debug": true`, "debug: is true"},
		{"ego: no debug member", checkEGo, egoFile, `    "debug": false,` + "\n", "", "debug: missing"},
		{"ego: debug in other letters", checkEGo, egoFile, `"debug": false`, `"debug": false, "Debug": true`, "Debug: no rule"},
		{"ego: executable heap", checkEGo, egoFile, `"executableHeap": false`, `"executableHeap": true`, "executableHeap"},
		{"ego: no product", checkEGo, egoFile, `    "productID": 1,` + "\n", "", "productID: missing"},
		{"ego: other product", checkEGo, egoFile, `"productID": 1`, `"productID": 3`, "productID"},
		{"ego: no version", checkEGo, egoFile, `    "securityVersion": 1,` + "\n", "", "securityVersion: missing"},
		{"ego: other version", checkEGo, egoFile, `"securityVersion": 1`, `"securityVersion": 2`, "securityVersion"},
		{"ego: variable of the host", checkEGo, egoFile, `"EHSM_CORE_PLATFORM", "value": "ego"`, `"EHSM_CORE_PLATFORM", "fromHost": true`, "want a name and a value"},
		{"ego: variable of the host with a value", checkEGo, egoFile, `"value": "ego"`, `"value": "ego", "fromHost": true`, "want a name and a value"},
		{"ego: variable twice", checkEGo, egoFile, `{ "name": "GOMEMLIMIT"`, `{ "name": "EHSM_CORE_PLATFORM", "value": "ego" }, { "name": "GOMEMLIMIT"`, "once"},
		{"ego: one more variable", checkEGo, egoFile, `{ "name": "GOMEMLIMIT"`, `{ "name": "GODEBUG", "value": "x" }, { "name": "GOMEMLIMIT"`, "no rule allows it"},
		{"ego: simulated platform", checkEGo, egoFile, `"value": "ego"`, `"value": "sim"`, "EHSM_CORE_PLATFORM"},
		{"ego: reached from outside", checkEGo, egoFile, "tcp:127.0.0.1", "tcp:0.0.0.0", "EHSM_CORE_LISTEN"},
		{"ego: root of the host", checkEGo, egoFile, `"target": "/domain"`, `"target": "/"`, "mounts"},
		{"ego: writable mount", checkEGo, egoFile, `"readOnly": true`, `"readOnly": false`, "mounts"},
		{"ego: embedded files", checkEGo, egoFile, `"files": []`, `"files": [{"source": "x", "target": "/x"}]`, "files"},
		{"ego: other program", checkEGo, egoFile, `"exe": "ehsm-core"`, `"exe": "sh"`, "exe"},
		{"ego: unknown member", checkEGo, egoFile, `"files": []`, `"files": [], "insecure": true`, "no rule allows it"},
		{"ego: no JSON", checkEGo, egoFile, "", "{", "invalid character"},
	} {
		b := file(t, row.file)
		if row.old == "" {
			b = append([]byte(row.new+"\n"), b...)
		} else {
			changed := bytes.Replace(b, []byte(row.old), []byte(row.new), 1)
			if bytes.Equal(changed, b) {
				t.Errorf("%s: the file has no %q", row.name, row.old)
				continue
			}
			b = changed
		}
		if err := row.check(b, svn); err == nil || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.text)
		}
	}
}

// TestNoKeyIsHere looks for signing keys beside the configurations.
func TestNoKeyIsHere(t *testing.T) {
	for _, dir := range []string{".", "ego", "gramine"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".pem") || strings.HasSuffix(e.Name(), ".key") || strings.HasSuffix(e.Name(), ".sig") {
				t.Errorf("%s/%s must not be here", dir, e.Name())
			}
		}
	}
}
