package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A machine is what a computer shows of itself in files below a root directory,
// "/" but in tests.
type machine struct{ root string }

// Devices and files of TEEs. Sources: Linux, Documentation/arch/x86/sgx.rst,
// arch/x86/tdx.rst, Documentation/virt/coco/sev-guest.rst and
// Documentation/ABI/testing/configfs-tsm.
const (
	sgxEnclave   = "/dev/sgx_enclave"
	sgxProvision = "/dev/sgx_provision"
	gramineType  = "/dev/attestation/attestation_type" // inside an enclave only
	tdxGuest     = "/dev/tdx_guest"
	sevGuest     = "/dev/sev-guest"
	configfs     = "/sys/kernel/config"
	tsmReport    = configfs + "/tsm/report"
)

// teeFlags are the words of /proc/cpuinfo that matter here.
var teeFlags = []string{"sgx", "sgx_lc", "tdx_guest", "tdx_host_platform", "sev", "sev_es", "sev_snp", "rdrand", "rdseed", "hypervisor"}

const maxProcFile = 64 << 10 // bytes that are read of a file of the kernel

// detect says what of TEEs this machine has. To have none is no problem: a
// client needs none.
func (m machine) detect() []check {
	model, flags := m.processor()
	release := m.line("/proc/sys/kernel/osrelease")
	guest := m.exists(tdxGuest) || m.exists(sevGuest)
	all := []check{
		processorCheck(model, flags),
		m.sgx(flags),
		m.guest("TDX guest", tdxGuest, "tdx_guest", slices.Contains(flags, "tdx_guest")),
		m.guest("SEV-SNP guest", sevGuest, "sev-guest", slices.Contains(flags, "sev_snp") && slices.Contains(flags, "hypervisor")),
	}
	if guest {
		all = append(all, kernelCheck(release), m.configfs())
	} else if tpm, ok := m.virtualTPM(flags); ok {
		all = append(all, tpm)
	}
	return all
}

func processorCheck(model string, flags []string) check {
	found := fmt.Sprintf("%s, flags: %s", cmp.Or(model, "unknown model"), cmp.Or(strings.Join(flags, " "), "none that matter here"))
	if slices.Contains(flags, "hypervisor") {
		found += "; a virtual machine"
	}
	return passed("processor", "%s", found)
}

// sgx looks for the driver, which the kernel offers only where the processor
// and the BIOS do.
func (m machine) sgx(flags []string) check {
	const name = "SGX"
	if kind := m.line(gramineType); kind != "" {
		return passed(name, "inside an enclave of Gramine, attestation type %s", printable(kind))
	}
	enclave, provision := m.usable(sgxEnclave), m.usable(sgxProvision)
	none := errors.Is(enclave, fs.ErrNotExist)
	switch {
	case enclave == nil && provision == nil:
		return passed(name, "%s and %s: enclaves of EGo and Gramine can run", sgxEnclave, sgxProvision)
	case none && (m.exists("/dev/isgx") || m.exists("/dev/sgx/enclave")):
		return problem(name, "use Linux 5.11 or later with its own driver, and remove the old one", "the device of an out-of-tree driver, but no %s", sgxEnclave)
	case none && slices.Contains(flags, "sgx"):
		return problem(name, "Linux 5.11 or later with CONFIG_X86_SGX; for a container: --device "+sgxEnclave+" --device "+sgxProvision,
			"the processor has it, but there is no %s", sgxEnclave)
	case none:
		return noted(name, "not here: no %s, and no flag sgx", sgxEnclave)
	case enclave != nil:
		return problem(name, "join the group of the device (sgx), or run as its owner", "%v", enclave)
	case errors.Is(provision, fs.ErrNotExist):
		return problem(name, "for a container: --device "+sgxProvision, "enclaves can run, but without %s none can make a quote in its own process", sgxProvision)
	}
	return problem(name, "join the group of the device (sgx_prv), or run as its owner", "%v", provision)
}

// guest looks for the device of a confidential virtual machine. Inside says that
// the processor names itself as that of one.
func (m machine) guest(name, device, module string, inside bool) check {
	err := m.usable(device)
	switch {
	case err == nil:
		return passed(name, "%s", device)
	case !errors.Is(err, fs.ErrNotExist):
		return problem(name, "run as root, or as the owner of the device", "%v", err)
	case inside:
		return problem(name, "modprobe "+module+"; for a container: --device "+device, "this is one, but there is no %s", device)
	}
	return noted(name, "not here: no %s", device)
}

// kernelCheck holds a confidential guest to the kernel that platform tsm wants.
func kernelCheck(release string) check {
	const name = "kernel"
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return problem(name, "is /proc mounted?", "release %s is not known", printable(release))
	}
	if major < 6 || major == 6 && minor < 9 {
		return problem(name, "use Linux 6.9 or later, which stops a confidential guest that it cannot seed with RDRAND",
			"Linux %s may take its random numbers from the host", printable(release))
	}
	return passed(name, "Linux %s", printable(release))
}

// configfs looks for the directory in which reports are asked for.
func (m machine) configfs() check {
	const name = "configfs-tsm"
	_, err := os.ReadDir(m.path(tsmReport))
	switch {
	case err == nil:
		return passed(name, "%s: platform tsm can ask for reports", tsmReport)
	case errors.Is(err, fs.ErrPermission):
		return problem(name, "run as root", "%s is not readable", tsmReport)
	case !m.exists(configfs):
		return problem(name, "modprobe configfs && mount -t configfs none "+configfs, "%s does not exist", configfs)
	}
	return problem(name, "mount -t configfs none "+configfs+"; the kernel must have CONFIG_TSM_REPORTS (6.7 or later)", "%s does not exist", tsmReport)
}

// virtualTPM names the guests of public clouds whose TEE speaks through a
// virtual TPM only.
func (m machine) virtualTPM(flags []string) (check, bool) {
	if !slices.Contains(flags, "hypervisor") {
		return check{}, false
	}
	for _, device := range []string{"/dev/tpmrm0", "/dev/tpm0"} {
		if m.exists(device) {
			return noted("virtual TPM", "%s of a virtual machine (%s), and no device of a TEE", device, m.vendor()).
				with("if it was rented as confidential, as Azure's are: its TEE reports only through this TPM, which ehsm-core cannot use; rent one with " + tdxGuest + " or " + sevGuest), true
		}
	}
	return check{}, false
}

func (m machine) vendor() string {
	return printable(cmp.Or(m.line("/sys/class/dmi/id/sys_vendor"), "of unknown make"))
}

// processor returns the model and the flags, of teeFlags, of the first processor.
func (m machine) processor() (model string, flags []string) {
	s := bufio.NewScanner(bytes.NewReader(m.read("/proc/cpuinfo")))
	s.Buffer(nil, maxProcFile)
	for s.Scan() && s.Text() != "" { // an empty line ends the first processor
		key, value, _ := strings.Cut(s.Text(), ":")
		switch strings.TrimSpace(key) {
		case "model name":
			model = printable(strings.TrimSpace(value))
		case "flags":
			words := strings.Fields(value)
			for _, f := range teeFlags {
				if slices.Contains(words, f) {
					flags = append(flags, f)
				}
			}
		}
	}
	return model, flags
}

func (m machine) path(name string) string { return filepath.Join(m.root, name) }

func (m machine) exists(name string) bool {
	_, err := os.Stat(m.path(name))
	return err == nil
}

// usable opens a device as a run-time would. The error says which and why.
func (m machine) usable(device string) error {
	f, err := os.OpenFile(m.path(device), os.O_RDWR, 0)
	if err != nil {
		var e *fs.PathError
		if errors.As(err, &e) {
			err = e.Err
		}
		return fmt.Errorf("open %s: %w", device, err)
	}
	return f.Close()
}

// read returns the start of a small file, nil if there is none.
func (m machine) read(name string) []byte {
	f, err := os.Open(m.path(name))
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxProcFile))
	if err != nil {
		return nil
	}
	return b
}

func (m machine) line(name string) string {
	text, _, _ := strings.Cut(string(m.read(name)), "\n")
	return strings.TrimSpace(text)
}
