package harden

import "golang.org/x/sys/unix"

const (
	auditArch      = unix.AUDIT_ARCH_AARCH64
	foreignNumbers = 0
)

var fatalHere = [...]uint32{unix.SYS_KEXEC_FILE_LOAD}
