package nodes

import (
	"context"
	"fmt"
	"slices"
	"time"
)

const (
	attempts = 5                      // to start one program
	quiet    = 500 * time.Millisecond // without an end, after which all has been noticed
)

// Revive starts again what has ended, until nothing ends any more: who kills several
// programs and asks for this at once may have more of them end while it runs, or end
// for want of each other. It returns when all have been started, not when they serve.
func (s *Site) Revive(ctx context.Context) error {
	parts, tried := s.order(), map[*part]int{}
	for calm := time.Now().Add(quiet); time.Now().Before(calm); {
		i := slices.IndexFunc(parts, func(p *part) bool { return p.pid() == 0 })
		if i < 0 {
			if err := wait(ctx, quiet/20); err != nil {
				return err
			}
			continue
		}
		p := parts[i]
		err := p.start(ctx)
		tried[p]++
		switch {
		case err == nil && tried[p] == 1:
			s.o.Say(p.name + " is started again")
		case tried[p] == attempts:
			return fmt.Errorf("%s has ended %d times; what it said is in %s", p.name, attempts, p.logFile())
		}
		calm = time.Now().Add(quiet)
	}
	return nil
}

// order is all parts, each after those that it does not start without.
func (s *Site) order() []*part {
	var all []*part
	if s.postgres != nil {
		all = append(all, s.postgres)
	}
	for _, n := range s.Nodes {
		all = append(all, n.parts[0])
	}
	for _, n := range s.Nodes {
		all = append(all, n.parts[1:]...)
	}
	return all
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
