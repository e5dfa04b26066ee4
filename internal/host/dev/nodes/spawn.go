package nodes

import (
	"os/exec"
	"runtime"
)

// A spawner starts processes from one thread that lives as long as it: the kernel
// ends them when the thread that has made them is gone, and so no program outlives
// an `ehsm dev` that was killed.
type spawner struct {
	todo chan spawn
	done chan struct{}
}

type spawn struct {
	cmd *exec.Cmd
	err chan error
}

func newSpawner() *spawner {
	s := &spawner{make(chan spawn), make(chan struct{})}
	go func() {
		runtime.LockOSThread() // and never unlocks it: the thread ends with this
		defer close(s.done)
		for x := range s.todo {
			x.err <- x.cmd.Start()
		}
	}()
	return s
}

// start starts a process.
func (s *spawner) start(cmd *exec.Cmd) error {
	x := spawn{cmd, make(chan error)}
	s.todo <- x
	return <-x.err
}

// close ends the thread, after all processes have ended.
func (s *spawner) close() {
	close(s.todo)
	<-s.done
}
