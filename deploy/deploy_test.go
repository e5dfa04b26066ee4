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

// A program has a configuration for each run-time.
type program struct {
	name    string
	prefix  string // of its settings
	product uint16
	argv    []any
	mounts  []mount
	heap    string // MB, with EGo
	size    string // of the enclave, with Gramine
	env     map[string]rule
}

// A mount is a directory of the host.
type mount struct {
	source, target string
	write          bool // EGo lets the program write there
}

const (
	domainDir   = "/var/lib/ehsm/domain"
	serverDir   = "/var/lib/ehsm/dkeyserver"
	platformDir = "/var/lib/ehsm/platform"
)

// programs are those that run in TEEs.
func programs() []program {
	return []program{
		{"ehsm-core", "EHSM_CORE_", tee.ProductCore, []any{"ehsm-core"}, []mount{{domainDir, domainDir, false}}, "2048", "2G", map[string]rule{
			"LISTEN":    matches(`tcp:127\.0\.0\.1:\d+`),
			"DKEYCACHE": matches(`tcp:127\.0\.0\.1:\d+`),
		}},
		{"ehsm-dkeycache", "EHSM_DKEYCACHE_", tee.ProductDKeyCache, []any{"ehsm-dkeycache"}, []mount{{platformDir, "/platform", false}}, "512", "512M", map[string]rule{
			"LISTEN":     matches(`tcp:127\.0\.0\.1:\d+`),
			"SERVERS":    matches(`[0-9.]+:\d+`),
			"DOMAIN_ID":  matches(`0{64}`), // to be replaced: the program refuses it
			"COLLATERAL": is("/platform/collateral.json"),
		}},
		{"ehsm-dkeyserver", "EHSM_DKEYSERVER_", tee.ProductDKeyServer, []any{"ehsm-dkeyserver", "serve"}, []mount{{serverDir, "/dkeyserver", true}, {platformDir, "/platform", false}}, "1024", "1G", map[string]rule{
			"LISTEN":     matches(`0\.0\.0\.0:\d+`),
			"ROLE":       is("root"),
			"DOMAIN":     is("/dkeyserver/domain"),
			"COLLATERAL": is("/platform/collateral.json"),
		}},
	}
}

// rules returns the variables of the program in an enclave, all of them required.
func (p *program) rules(platform string) map[string]rule {
	all := map[string]rule{p.prefix + "PLATFORM": is(platform), "GOMEMLIMIT": matches(`\d+MiB`)}
	for name, r := range p.env {
		all[p.prefix+name] = r
	}
	if platform == "gramine" && p.product == tee.ProductCore { // there are no local reports
		all[p.prefix+"COLLATERAL"] = is("/platform/collateral.json")
	}
	return all
}

func (p *program) egoFile() string     { return "ego/" + p.name + "/enclave.json" }
func (p *program) gramineFile() string { return "gramine/" + p.name + ".manifest.template" }

// named returns the program of a name.
func named(name string) program {
	for _, p := range programs() {
		if p.name == name {
			return p
		}
	}
	panic(name)
}

// svn is the security version that the program is built with.
func (p *program) svn(t *testing.T) int {
	t.Helper()
	m := regexp.MustCompile(`(?m)^const svn = (\d+)$|launch\.Program\{.*SVN: (\d+)\}`).FindSubmatch(file(t, "../cmd/"+p.name+"/main.go"))
	if m == nil {
		t.Fatalf("cmd/%s has no security version", p.name)
	}
	n, err := strconv.Atoi(string(m[1]) + string(m[2]))
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

// gramine returns the rules of the program's manifest.
func (p *program) gramine(svn int) map[string]rule {
	mounts := p.mounts
	if p.product == tee.ProductCore {
		mounts = append(mounts, mount{platformDir, "/platform", false})
	}
	allowed := []any{}
	mounted := []any{
		map[string]any{"path": "/lib64", "uri": "file:{{ gramine.runtimedir() }}"},
		map[string]any{"path": "/" + p.name, "uri": "file:" + p.name},
	}
	for _, m := range mounts {
		allowed = append(allowed, "file:"+m.source+"/")
		mounted = append(mounted, map[string]any{"path": m.target, "uri": "file:" + m.source})
	}
	rules := map[string]rule{
		"loader.entrypoint.uri":        is("file:{{ gramine.libos }}"),
		"libos.entrypoint":             is("/" + p.name),
		"loader.argv":                  is(p.argv),
		"loader.log_level":             is("error"),
		"loader.env.GODEBUG":           is("asyncpreemptoff=1"),
		"sys.enable_sigterm_injection": is(true),
		"sys.disallow_subprocesses":    is(true),
		"sgx.debug":                    is(false),
		"sgx.isvprodid":                is(int64(p.product)),
		"sgx.isvsvn":                   is(int64(svn)),
		"sgx.remote_attestation":       is("dcap"),
		"sgx.enclave_size":             is(p.size),
		"sgx.edmm_enable":              is(false),
		"sgx.max_threads":              between(16, 256),
		"sgx.file_check_policy":        is("strict"),
		"sgx.trusted_files":            is([]any{"file:{{ gramine.libos }}", "file:{{ gramine.runtimedir() }}/", "file:" + p.name}),
		"sgx.allowed_files":            is(allowed),
		"fs.mounts":                    is(mounted),
	}
	for name, r := range p.rules("gramine") {
		rules["loader.env."+name] = r
	}
	return rules
}

// checkGramine refuses a manifest that is not known to be safe. Expressions of
// the template are in strings only, so it is TOML as it stands.
func checkGramine(b []byte, p program, svn int) error {
	var tree map[string]any
	if _, err := toml.Decode(string(b), &tree); err != nil {
		return err
	}
	settings := map[string]any{}
	flatten("", tree, settings)
	return apply(p.gramine(svn), settings)
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
func checkEGo(b []byte, p program, svn int) error {
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
	mounts := []any{}
	for _, m := range p.mounts {
		mounts = append(mounts, map[string]any{"source": m.source, "target": m.target, "type": "hostfs", "readOnly": !m.write})
	}
	return apply(map[string]rule{
		"exe":             is(p.name),
		"key":             is("signing-key.pem"),
		"debug":           is(false),
		"executableHeap":  is(false),
		"productID":       number(int(p.product)),
		"securityVersion": number(svn),
		"heapSize":        is(json.Number(p.heap)),
		"files":           is([]any{}),
		"mounts":          is(mounts),
		"env":             func(v any) error { return checkEnv(v, p.rules("ego")) },
	}, settings)
}

// checkEnv wants every variable once, with a value that is written here.
func checkEnv(v any, rules map[string]rule) error {
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
	return apply(rules, settings)
}

func TestConfigurations(t *testing.T) {
	for _, p := range programs() {
		if err := checkGramine(file(t, p.gramineFile()), p, p.svn(t)); err != nil {
			t.Errorf("%s: %v", p.gramineFile(), err)
		}
		if err := checkEGo(file(t, p.egoFile()), p, p.svn(t)); err != nil {
			t.Errorf("%s: %v", p.egoFile(), err)
		}
	}
}

// TestOneRoleEach has the configuration of each program refused for the others.
func TestOneRoleEach(t *testing.T) {
	for _, p := range programs() {
		for _, other := range programs() {
			if p.name == other.name {
				continue
			}
			if checkGramine(file(t, p.gramineFile()), other, other.svn(t)) == nil || checkEGo(file(t, p.egoFile()), other, other.svn(t)) == nil {
				t.Errorf("the configuration of %s will do for %s", p.name, other.name)
			}
		}
	}
}

// TestMutatedConfigurations makes each file insecure in one place.
func TestMutatedConfigurations(t *testing.T) {
	core := named("ehsm-core")
	egoFile, gramineFile := core.egoFile(), core.gramineFile()
	cache, server := named("ehsm-dkeycache"), named("ehsm-dkeyserver")
	owner := func(path string) program {
		for _, p := range programs() {
			if path == p.egoFile() || path == p.gramineFile() {
				return p
			}
		}
		panic(path)
	}
	for _, row := range []struct {
		name     string
		check    func([]byte, program, int) error
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
		{"gramine: more files of the host", checkGramine, gramineFile, `["file:/var/lib/ehsm/domain/"`, `["file:/", "file:/var/lib/ehsm/domain/"`, "sgx.allowed_files"},
		{"gramine: mount of the host", checkGramine, gramineFile, "  { path = \"/ehsm-core\"", "  { path = \"/etc\", uri = \"file:/etc\" },\n  { path = \"/ehsm-core\"", "fs.mounts"},
		{"gramine: seal key used twice", checkGramine, gramineFile, `{ path = "/platform", uri`, `{ type = "encrypted", key_name = "_sgx_mrsigner", path = "/platform", uri`, "fs.mounts"},
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
		{"ego: root of the host", checkEGo, egoFile, `"target": "/var/lib/ehsm/domain"`, `"target": "/"`, "mounts"},
		{"ego: writable mount", checkEGo, egoFile, `"readOnly": true`, `"readOnly": false`, "mounts"},
		{"ego: embedded files", checkEGo, egoFile, `"files": []`, `"files": [{"source": "x", "target": "/x"}]`, "files"},
		{"ego: other program", checkEGo, egoFile, `"exe": "ehsm-core"`, `"exe": "sh"`, "exe"},
		{"ego: unknown member", checkEGo, egoFile, `"files": []`, `"files": [], "insecure": true`, "no rule allows it"},
		{"dkeycache on gramine: debug", checkGramine, cache.gramineFile(), "sgx.debug = false", "sgx.debug = true", "sgx.debug"},
		{"dkeycache on gramine: product of a core", checkGramine, cache.gramineFile(), "sgx.isvprodid = 2", "sgx.isvprodid = 1", "sgx.isvprodid"},
		{"dkeycache on gramine: a domain", checkGramine, cache.gramineFile(), `DOMAIN_ID = "0`, `DOMAIN_ID = "1`, "DOMAIN_ID"},
		{"dkeycache on gramine: cores of other machines", checkGramine, cache.gramineFile(), "tcp:127.0.0.1:9102", "tcp:0.0.0.0:9102", "LISTEN"},
		{"dkeycache on gramine: names of hosts", checkGramine, cache.gramineFile(), "192.0.2.1:8888", "dkeyserver:8888", "SERVERS"},
		{"dkeycache on ego: debug", checkEGo, cache.egoFile(), `"debug": false`, `"debug": true`, "debug"},
		{"dkeycache on ego: product of a core", checkEGo, cache.egoFile(), `"productID": 2`, `"productID": 1`, "productID"},
		{"dkeycache on ego: writes", checkEGo, cache.egoFile(), `"readOnly": true`, `"readOnly": false`, "mounts"},
		{"dkeyserver on gramine: debug", checkGramine, server.gramineFile(), "sgx.debug = false", "sgx.debug = true", "sgx.debug"},
		{"dkeyserver on gramine: product of a dkeycache", checkGramine, server.gramineFile(), "sgx.isvprodid = 3", "sgx.isvprodid = 2", "sgx.isvprodid"},
		{"dkeyserver on gramine: makes a domain at each start", checkGramine, server.gramineFile(), `"serve"]`, `"init", "/dkeyserver/draft.json"]`, "loader.argv"},
		{"dkeyserver on gramine: all of the host's state", checkGramine, server.gramineFile(), "file:/var/lib/ehsm/dkeyserver\"", "file:/var/lib/ehsm\"", "fs.mounts"},
		{"dkeyserver on ego: debug", checkEGo, server.egoFile(), `"debug": false`, `"debug": true`, "debug"},
		{"dkeyserver on ego: product of a dkeycache", checkEGo, server.egoFile(), `"productID": 3`, `"productID": 2`, "productID"},
		{"dkeyserver on ego: variable of the host", checkEGo, server.egoFile(), `"EHSM_DKEYSERVER_ROLE", "value": "root"`, `"EHSM_DKEYSERVER_ROLE", "fromHost": true`, "want a name and a value"},
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
		p := owner(row.file)
		if err := row.check(b, p, p.svn(t)); err == nil || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.text)
		}
	}
}

// TestNoKeyIsHere looks for signing keys beside the configurations.
func TestNoKeyIsHere(t *testing.T) {
	for _, dir := range []string{".", "ego", "ego/ehsm-core", "ego/ehsm-dkeycache", "ego/ehsm-dkeyserver", "gramine", "systemd"} {
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
