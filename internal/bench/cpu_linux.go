package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime returns the CPU time, user and system, that the processes have used
// with all threads that they have or had. The kernel counts nanoseconds, and
// /proc shows ticks of 10 ms only.
func cpuTime(pids []int) (total time.Duration, err error) {
	for _, pid := range pids {
		var ts unix.Timespec
		// The clock of another process, as clock_getcpuclockid(3) builds it:
		// the complement of the pid, then CPUCLOCK_SCHED, which is 2.
		if err := unix.ClockGettime(^int32(pid)<<3|2, &ts); err != nil {
			return 0, fmt.Errorf("process %d: %w", pid, err)
		}
		total += time.Duration(ts.Nano())
	}
	return total, nil
}

// busyTime returns the CPU time of everything that runs on the machine, and what
// its hypervisor gave to others. The kernel counts ticks of 10 ms.
func busyTime() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat") // proc(5): cpu user nice system idle iowait irq softirq steal ...
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	fields := bytes.Fields(line)
	if len(fields) < 9 || string(fields[0]) != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, err := strconv.ParseInt(string(fields[i]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// residentSize returns the memory, in bytes, that the processes have in RAM
// together, the pages of their programs included.
func residentSize(pids []int) (total int64, err error) {
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)) // proc(5): size resident ...
		if err != nil {
			return 0, err
		}
		fields := bytes.Fields(text)
		if len(fields) < 2 {
			return 0, fmt.Errorf("process %d: statm is %q", pid, text)
		}
		pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("process %d: %w", pid, err)
		}
		total += pages * int64(os.Getpagesize())
	}
	return total, nil
}

// lowestPriority has the kernel run all threads of this process, those to come
// included, only while others leave time. Threads have priorities of their own on
// Linux, and new ones have that of the thread that starts them.
func lowestPriority() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err == nil {
			err = unix.Setpriority(unix.PRIO_PROCESS, tid, 19)
		}
		if err != nil {
			return fmt.Errorf("thread %s: %w", t.Name(), err)
		}
	}
	return nil
}
