package deploy

import (
	"bufio"
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// confined is what every service has.
var confined = []string{
	"User=ehsm", "Group=ehsm", "UMask=0077", "StateDirectoryMode=0700", "NoNewPrivileges=yes", "CapabilityBoundingSet=",
	"ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes", "ProtectKernelTunables=yes",
	"LockPersonality=yes", "MemoryDenyWriteExecute=yes", "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
	"RestrictNamespaces=yes", "RestrictSUIDSGID=yes", "SystemCallArchitectures=native",
}

// served is what those have beside it that go on running.
var served = []string{
	"Type=exec", "Restart=always", "LimitCORE=0", "AmbientCapabilities=", "RuntimeDirectory=ehsm", "RuntimeDirectoryMode=0700", "RuntimeDirectoryPreserve=yes",
	"ProtectClock=yes", "ProtectControlGroups=yes", "ProtectHostname=yes", "ProtectKernelLogs=yes", "ProtectKernelModules=yes",
	"RemoveIPC=yes", "RestrictRealtime=yes",
}

// checkUnit returns what a unit lacks or has twice.
func checkUnit(name string, b []byte) (missing []string) {
	var lines []string
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	program := strings.TrimSuffix(name, ".service")
	want := slices.Clone(confined)
	if program != "ehsm-collateral" {
		want = append(append(want, served...), "EnvironmentFile=/etc/ehsm/"+program+".env")
	}
	if program != "ehsm-collateral" && program != "ehsm-kms" && program != "ehsm-hsm" {
		want = append(want, "LimitMEMLOCK=1M")
	}
	for _, w := range want {
		if !slices.Contains(lines, w) {
			missing = append(missing, w)
		}
	}
	seen := map[string]bool{}
	for _, line := range lines {
		key, _, ok := strings.Cut(line, "=")
		switch {
		case ok && seen[key]:
			missing = append(missing, "only one "+key)
		case key == "Environment" || key == "PassEnvironment" || key == "LoadCredential":
			missing = append(missing, "no "+key)
		case key == "ExecStart" && !strings.HasPrefix(line, "ExecStart=/usr/local/bin/"+program) && program != "ehsm-collateral":
			missing = append(missing, "its own program")
		}
		seen[key] = true
	}
	return missing
}

func TestUnits(t *testing.T) {
	paths, err := filepath.Glob("systemd/*.service")
	if err != nil || len(paths) != 6 {
		t.Fatalf("found %v, %v", paths, err)
	}
	for _, path := range paths {
		if missing := checkUnit(filepath.Base(path), file(t, path)); len(missing) > 0 {
			t.Errorf("%s lacks %q", path, missing)
		}
	}
}

// TestMutatedUnits takes each line of confinement out of a unit, and turns it off at
// its end.
func TestMutatedUnits(t *testing.T) {
	b := file(t, "systemd/ehsm-core.service")
	for _, line := range append(slices.Clone(confined), served...) {
		if len(checkUnit("ehsm-core.service", bytes.Replace(b, []byte("\n"+line+"\n"), []byte("\n"), 1))) == 0 {
			t.Errorf("without %s: accepted", line)
		}
		key, _, _ := strings.Cut(line, "=")
		if len(checkUnit("ehsm-core.service", append(bytes.Clone(b), key+"=no\n"...))) == 0 {
			t.Errorf("%s=no at the end: accepted", key)
		}
	}
	if len(checkUnit("ehsm-kms.service", b)) == 0 {
		t.Error("the unit of another program: accepted")
	}
}
