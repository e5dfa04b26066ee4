package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/trusted/provision"
	stream "github.com/ehsm-kms/ehsm/internal/trusted/serve"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// openDoor listens for operators of this machine. There is none where the settings
// say so.
func (s *server) openDoor() (net.Listener, error) {
	if s.settings.Door == "" {
		return nil, nil
	}
	return stream.Listen("unix:" + s.settings.Door)
}

// answerOperators serves the door until ctx ends.
func (s *server) answerOperators(ctx context.Context, ln net.Listener) {
	err := (&provision.Door{
		Domain: s.known.Get, Holder: s.holder, Self: s.self, Members: s.members, Waiting: s.waiting, Keep: s.write, Log: s.log,
		Recovery: s.recovery, Facts: s.factsKnown,
		Server: overview.Server{Kind: s.settings.Role, Release: api.Version, Started: time.Now().UTC().Truncate(time.Second)},
	}).Serve(ctx, ln)
	if err != nil {
		s.log.Error("operators are no longer answered", "why", err.Error())
	}
}

// sweep removes what an earlier life was writing when it was killed: nothing else
// has these names, and none of it was in use.
func (s *server) sweep() {
	left, err := filepath.Glob(filepath.Join(s.settings.Domain, ".new-*"))
	if err != nil {
		return // a directory whose name is a pattern
	}
	for _, path := range left {
		if err := os.RemoveAll(path); err != nil {
			s.log.Warn("what was left behind is not removed", "path", path, "why", err.Error())
		}
	}
}
