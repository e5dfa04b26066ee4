package judge

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// Device files of the platforms.
const (
	SGXEnclave   = "/dev/sgx_enclave"
	SGXProvision = "/dev/sgx_provision"
	TDXGuest     = "/dev/tdx_guest"
	SEVGuest     = "/dev/sev-guest"
	TSM          = "/sys/kernel/config/tsm/report"
	TPM          = "/dev/tpm0"
)

// needs is what each platform needs of the machine that it runs on.
func needs(platform string) []string {
	switch platform {
	case "gramine", "ego":
		return []string{SGXEnclave, SGXProvision}
	case "tdx", "snp", "tsm":
		return []string{TSM}
	}
	return nil
}

// DeviceLine says whether a host has what a platform needs. An unknown platform,
// or one of which nothing is known yet, needs any TEE.
func DeviceLine(h *acceptance.Host, platform string) Line {
	if platform == "sim" {
		return Line{Devices, acceptance.NotAvailable, "a simulated platform needs none", ""}
	}
	var have, missing []string
	for _, path := range needs(platform) {
		if h.Has(path) {
			have = append(have, path)
			continue
		}
		missing = append(missing, path+" is "+state(h, path))
	}
	switch {
	case len(missing) > 0:
		return Line{Devices, acceptance.Fail, strings.Join(missing, "; "), deviceHint(h, missing[0])}
	case len(have) > 0:
		return Line{Devices, acceptance.Pass, "usable: " + strings.Join(have, ", "), ""}
	}
	return Line{Devices, acceptance.Fail, fmt.Sprintf("platform %q is unknown", platform), deviceHint(h, "")}
}

func state(h *acceptance.Host, path string) string {
	for _, d := range h.Devices {
		if d.Path == path {
			return d.State
		}
	}
	return "not looked at"
}

func deviceHint(h *acceptance.Host, missing string) string {
	switch {
	case strings.Contains(missing, acceptance.DeviceClosed):
		return "run as root, or as a member of the group of the device (sgx, sgx_prv)"
	case VirtualTPMOnly(h):
		return "this guest has a virtual TPM and no TEE device: such guests are not supported, docs/hardware.md#guests-with-a-virtual-tpm"
	case strings.HasPrefix(missing, SGXEnclave):
		return "enable SGX in the firmware (not \"software controlled\"), and use Linux 5.11 or later; in a guest, have the host pass SGX on"
	case strings.HasPrefix(missing, SGXProvision):
		return "Linux 5.11 or later makes it with sgx_enclave; in a container, pass both devices on"
	}
	return "mount -t configfs none /sys/kernel/config and modprobe tdx_guest or sev-guest, in a confidential guest with Linux 6.9 or later"
}

// VirtualTPMOnly reports that a guest has a TPM and no TEE device, as guests of
// public clouds have whose evidence comes from a virtual TPM.
func VirtualTPMOnly(h *acceptance.Host) bool {
	guest := false
	for _, f := range h.Flags {
		guest = guest || f == "hypervisor"
	}
	return guest && h.Has(TPM) && state(h, SGXEnclave) == acceptance.DeviceAbsent && state(h, TSM) == acceptance.DeviceAbsent &&
		state(h, TDXGuest) == acceptance.DeviceAbsent && state(h, SEVGuest) == acceptance.DeviceAbsent
}

const hintOther = "use ehsm and ehsm-core of the same version"

// hint says what to do about a check that failed.
func hint(check string, err error) string {
	if check == Genuine {
		return genuineHint(err)
	}
	return map[string]string{
		Bound:                          "the report was changed or put together: make it again, and keep it as it is",
		Same:                           "do not replace the program between the runs",
		Hardware:                       "name a hardware platform; --allow-sim tries the procedure without one",
		Nonce:                          "have the report made again with --nonce",
		Wanted:                         "if you know this program and machine, add them to the policy; else do not use them",
		string(acceptance.Identity):    "sign the release build again: debug off, product and version as built",
		string(acceptance.Randomness):  "do not use this machine: keys made on it could be guessed",
		string(acceptance.Evidence):    "does the quoting service run (AESM or QGS), and can it reach a PCCS that knows this machine?",
		string(acceptance.SealKeys):    "do not use this machine; please report it with this file",
		string(acceptance.Restart):     "was microcode or BIOS updated between the runs? else do not use this machine",
		string(acceptance.LocalReport): "do not use this machine; please report it with this file",
		string(acceptance.Clock):       "set the host's clock (NTP, no steps backwards) and run again",
		string(acceptance.Memory):      "raise the size of the enclave, or the machine's EPC in its firmware",
		string(acceptance.Throughput):  "is something else running, or is the enclave larger than the EPC? --min-ratio accepts less",
	}[check]
}

func genuineHint(err error) string {
	var step *verify.Error
	switch {
	case errors.Is(err, errNoCollateral):
		return "name what the maker says of the machine: --pccs URL, or --collateral FILE"
	case errors.Is(err, errNoEvidence):
		return "look at the line evidence"
	case errors.Is(err, errReportData), errors.Is(err, errProgram):
		return "the report was changed, or the program that made it is not what it says: do not trust it"
	case errors.Is(err, verify.ErrUnknownRoot):
		return "somebody else than the maker vouches for the machine; --root names another root, if you know and trust it"
	case errors.Is(err, verify.ErrSimulated):
		return "a simulated platform protects nothing; --allow-sim tries the procedure"
	case errors.As(err, &step):
		return "ehsm attest doctor and ehsm attest verify say more about the step " + step.Step.String()
	}
	return "is the collateral of this machine, and in force at --at?"
}
