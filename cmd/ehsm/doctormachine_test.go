package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fakeMachine writes the files of a machine; the empty text is an empty file.
func fakeMachine(t *testing.T, files map[string]string) machine {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return machine{root}
}

func cpuinfo(flags string) string {
	first := "processor\t: 0\nmodel name\t: Fast 9000\nflags\t\t: fpu " + flags + " xsave\n"
	return first + "\nprocessor\t: 1\nmodel name\t: Another\nflags\t\t: sgx tdx_guest\n"
}

func TestDetect(t *testing.T) {
	const cpu, release = "/proc/cpuinfo", "/proc/sys/kernel/osrelease"
	for name, row := range map[string]struct {
		files map[string]string
		want  []string // the start of each line: name, state, and what is found
	}{
		"nothing readable": {nil, []string{
			"processor ok unknown model, flags: none that matter here", "SGX note not here", "TDX guest note not here", "SEV-SNP guest note not here"}},
		"an ordinary machine": {map[string]string{cpu: cpuinfo("rdrand rdseed")}, []string{
			"processor ok Fast 9000, flags: rdrand rdseed", "SGX note not here", "TDX guest note not here", "SEV-SNP guest note not here"}},
		"SGX": {map[string]string{cpu: cpuinfo("sgx sgx_lc"), sgxEnclave: "", sgxProvision: ""}, []string{
			"processor ok", "SGX ok /dev/sgx_enclave and /dev/sgx_provision", "TDX guest note", "SEV-SNP guest note"}},
		"SGX without its device": {map[string]string{cpu: cpuinfo("sgx")}, []string{
			"processor ok", "SGX problem the processor has it, but there is no /dev/sgx_enclave", "TDX guest note", "SEV-SNP guest note"}},
		"SGX without provisioning": {map[string]string{cpu: cpuinfo("sgx"), sgxEnclave: ""}, []string{
			"processor ok", "SGX problem enclaves can run, but without /dev/sgx_provision", "TDX guest note", "SEV-SNP guest note"}},
		"SGX with an old driver": {map[string]string{cpu: cpuinfo("sgx"), "/dev/isgx": ""}, []string{
			"processor ok", "SGX problem the device of an out-of-tree driver", "TDX guest note", "SEV-SNP guest note"}},
		"in an enclave of Gramine": {map[string]string{gramineType: "dcap\n"}, []string{
			"processor ok", "SGX ok inside an enclave of Gramine, attestation type dcap", "TDX guest note", "SEV-SNP guest note"}},
		"TDX guest": {map[string]string{cpu: cpuinfo("tdx_guest hypervisor"), tdxGuest: "", release: "6.12.0-9-generic\n", tsmReport + "/x/provider": ""}, []string{
			"processor ok Fast 9000, flags: tdx_guest hypervisor; a virtual machine", "SGX note", "TDX guest ok /dev/tdx_guest", "SEV-SNP guest note",
			"kernel ok Linux 6.12.0-9-generic", "configfs-tsm ok"}},
		"TDX guest without its device": {map[string]string{cpu: cpuinfo("tdx_guest hypervisor"), release: "6.12.0\n"}, []string{
			"processor ok", "SGX note", "TDX guest problem this is one, but there is no /dev/tdx_guest", "SEV-SNP guest note"}},
		"SEV-SNP guest of an old kernel": {map[string]string{cpu: cpuinfo("hypervisor"), sevGuest: "", release: "6.8.0-31\n", configfs + "/x": ""}, []string{
			"processor ok", "SGX note", "TDX guest note", "SEV-SNP guest ok /dev/sev-guest",
			"kernel problem Linux 6.8.0-31 may take its random numbers from the host", "configfs-tsm problem /sys/kernel/config/tsm/report does not exist"}},
		"SEV-SNP guest without its device": {map[string]string{cpu: cpuinfo("sev_snp hypervisor")}, []string{
			"processor ok", "SGX note", "TDX guest note", "SEV-SNP guest problem this is one, but there is no /dev/sev-guest"}},
		"SEV-SNP host": {map[string]string{cpu: cpuinfo("sev sev_es sev_snp")}, []string{
			"processor ok Fast 9000, flags: sev sev_es sev_snp", "SGX note", "TDX guest note", "SEV-SNP guest note"}},
		"guest without configfs and kernel": {map[string]string{tdxGuest: ""}, []string{
			"processor ok", "SGX note", "TDX guest ok", "SEV-SNP guest note", `kernel problem release "" is not known`, "configfs-tsm problem /sys/kernel/config does not exist"}},
		"guest of a cloud with a virtual TPM": {map[string]string{cpu: cpuinfo("hypervisor"), "/dev/tpmrm0": "", "/sys/class/dmi/id/sys_vendor": "Microsoft Corporation\n"}, []string{
			"processor ok", "SGX note", "TDX guest note", "SEV-SNP guest note", "virtual TPM note /dev/tpmrm0 of a virtual machine (Microsoft Corporation), and no device of a TEE"}},
		"a TPM of iron": {map[string]string{cpu: cpuinfo("rdrand"), "/dev/tpmrm0": ""}, []string{
			"processor ok", "SGX note", "TDX guest note", "SEV-SNP guest note"}},
		"names that would upset a terminal": {map[string]string{cpu: "model name : \x1b[2J\nflags: hypervisor\n", "/dev/tpm0": "", "/sys/class/dmi/id/sys_vendor": "\x1b[2J"}, []string{
			`processor ok "\x1b[2J", flags`, "SGX note", "TDX guest note", "SEV-SNP guest note", `virtual TPM note /dev/tpm0 of a virtual machine ("\x1b[2J")`}},
	} {
		t.Run(name, func(t *testing.T) {
			got := fakeMachine(t, row.files).detect()
			if len(got) != len(row.want) {
				t.Fatalf("detect: got %d checks, want %d: %v", len(got), len(row.want), got)
			}
			for i, c := range got {
				if line := c.Name + " " + c.State + " " + c.Found; !strings.HasPrefix(line, row.want[i]) {
					t.Errorf("detect: got %q, want %q", line, row.want[i])
				}
				if c.State == stateProblem && c.Do == "" {
					t.Errorf("detect: nothing to do about %q", c.Found)
				}
			}
		})
	}
}

// A device that is there but does not open is another problem than one that is
// missing. A directory in its place does not open for root either.
func TestDetectShut(t *testing.T) {
	files := map[string]string{sgxEnclave: "", sgxProvision: "", tdxGuest: "", sevGuest: ""}
	for name, row := range map[string]struct{ device, want string }{
		"SGX":          {sgxEnclave, "open /dev/sgx_enclave: is a directory"},
		"provisioning": {sgxProvision, "open /dev/sgx_provision: is a directory"},
		"TDX":          {tdxGuest, "open /dev/tdx_guest: is a directory"},
		"SEV-SNP":      {sevGuest, "open /dev/sev-guest: is a directory"},
	} {
		m := fakeMachine(t, files)
		for _, err := range []error{os.Remove(m.path(row.device)), os.Mkdir(m.path(row.device), 0o700)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := m.detect(); !slices.ContainsFunc(got, func(c check) bool { return c.State == stateProblem && c.Found == row.want }) {
			t.Errorf("%s: got %v, want %q", name, got, row.want)
		}
	}
}
