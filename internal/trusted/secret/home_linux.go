package secret

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// What package syscall does not name. The numbers are those of every
// architecture that Go runs on under Linux.
const (
	sysMemfdSecret = 447 // memfd_secret(2)
	madvDontFork   = 10
	madvDontDump   = 16
)

// mapRegion maps at least n bytes of zeroed memory between two guard pages.
func mapRegion(m Memory, n int) (region, error) {
	page := os.Getpagesize()
	n = (n + page - 1) / page * page
	whole, err := syscall.Mmap(-1, 0, n+2*page, syscall.PROT_NONE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return region{}, fmt.Errorf("mmap: %w", err)
	}
	r := region{whole, whole[page : page+n : page+n]}
	if m == Hidden {
		err = mapHidden(r.usable)
	} else {
		err = lock(r.usable)
	}
	if err == nil {
		err = exclude(r.usable)
	}
	if err != nil {
		syscall.Munmap(whole)
		return region{}, err
	}
	return r, nil
}

// mapHidden puts memory of memfd_secret(2) in the place of b. The kernel counts
// it as locked.
func mapHidden(b []byte) error {
	fd, _, errno := syscall.Syscall(sysMemfdSecret, syscall.O_CLOEXEC, 0, 0)
	if errno != 0 {
		return fmt.Errorf("memfd_secret: %w", errno)
	}
	defer syscall.Close(int(fd)) // the mapping stays
	if err := syscall.Ftruncate(int(fd), int64(len(b))); err != nil {
		return fmt.Errorf("size of secret memory: %w", err)
	}
	// syscall.Mmap cannot choose the place.
	_, _, errno = syscall.Syscall6(syscall.SYS_MMAP, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_FIXED, fd, 0)
	if errno != 0 {
		return fmt.Errorf("map secret memory: %w", errno)
	}
	return nil
}

// lock makes b usable and keeps it out of swap space.
func lock(b []byte) error {
	if err := syscall.Mprotect(b, syscall.PROT_READ|syscall.PROT_WRITE); err != nil {
		return fmt.Errorf("mprotect: %w", err)
	}
	if err := syscall.Mlock(b); err != nil {
		return fmt.Errorf("mlock: %w", err)
	}
	return nil
}

// exclude keeps b out of core dumps and of forked children, which do not even
// have the address. Go starts programs with fork and exec.
func exclude(b []byte) error {
	for _, advice := range []int{madvDontDump, madvDontFork} {
		if err := syscall.Madvise(b, advice); err != nil {
			return fmt.Errorf("madvise %d: %w", advice, err)
		}
	}
	return nil
}

func unmapRegion(r region) error { return syscall.Munmap(r.whole) }
