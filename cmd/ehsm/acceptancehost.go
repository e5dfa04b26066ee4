package main

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"unicode"

	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
	judging "github.com/ehsm-kms/ehsm/internal/attest/acceptance/judge"
)

// facts returns what an acceptance report says of a machine. What cannot be read
// is empty: it proves nothing anyway.
func (m machine) facts() acceptance.Host {
	_, flags := m.processor()
	const dmi = "/sys/class/dmi/id/" // hidden from users on some machines
	h := acceptance.Host{
		Vendor: m.cpu("vendor_id"), Model: m.cpu("model name"), Microcode: m.cpu("microcode"),
		Flags: append([]string{}, flags...), Processors: runtime.NumCPU(), Kernel: plain(m.line("/proc/sys/kernel/osrelease")),
		Product: plain(m.line(dmi+"sys_vendor") + " " + m.line(dmi+"product_name")),
		BIOS:    plain(m.line(dmi+"bios_vendor") + " " + m.line(dmi+"bios_version") + " " + m.line(dmi+"bios_date")),
	}
	for _, path := range []string{judging.SGXEnclave, judging.SGXProvision, judging.TDXGuest, judging.SEVGuest, judging.TSM, judging.TPM} {
		h.Devices = append(h.Devices, acceptance.Device{Path: path, State: m.state(path)})
	}
	return h
}

// cpu returns a field of the first processor in /proc/cpuinfo.
func (m machine) cpu(field string) string {
	for text := range strings.Lines(string(m.read("/proc/cpuinfo"))) {
		name, value, ok := strings.Cut(text, ":")
		if !ok {
			break // a blank line ends the first processor
		}
		if strings.TrimSpace(name) == field {
			return plain(value)
		}
	}
	return ""
}

// state opens a device as its users do, and closes it.
func (m machine) state(path string) string {
	err := m.usable(path)
	if info, statErr := os.Stat(m.path(path)); statErr == nil && info.IsDir() {
		_, err = os.ReadDir(m.path(path))
	}
	switch {
	case err == nil:
		return acceptance.DeviceUsable
	case errors.Is(err, fs.ErrNotExist):
		return acceptance.DeviceAbsent
	case errors.Is(err, fs.ErrPermission):
		return acceptance.DeviceClosed
	}
	return plain("there, but: " + err.Error())
}

// plain returns a text of the machine as a report holds it: one line of what can
// be printed, without white space around it.
func plain(s string) string {
	const limit = 500 // bytes
	return acceptance.Text(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.TrimSpace(s)), limit)
}
