package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/provision"
)

// WaitingFile, in the domain's directory, lists the machines that the manifest does
// not admit.
const WaitingFile = "waiting.json"

// readWaiting goes on with the list of an earlier life. One that cannot be read is
// replaced when a machine comes.
func (s *server) readWaiting() {
	f, err := os.Open(filepath.Join(s.settings.Domain, WaitingFile))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		defer f.Close()
		var b []byte
		if b, err = io.ReadAll(io.LimitReader(f, provision.MaxWaitingFile+1)); err == nil {
			err = s.waiting.Load(b, time.Now())
		}
	}
	if err != nil {
		s.log.Warn("the list of waiting machines is begun anew", "why", err.Error())
	}
	s.waitingCount = len(s.waiting.List())
}

// saveWaiting keeps the list, if there is something new. What is not written is
// tried again at the next look, and told once.
func (s *server) saveWaiting() {
	said := s.waitingSaid
	err := s.waiting.Save(time.Now(), func(list []byte) error {
		if err := domainkey.WriteFile(s.settings.Domain, WaitingFile, list); err != nil {
			return err
		}
		n := len(s.waiting.List())
		if n > s.waitingCount {
			s.log.Warn("a machine waits for admission", "list", filepath.Join(s.settings.Domain, WaitingFile), "machines", n)
		}
		s.waitingCount, s.waitingSaid = n, ""
		return nil
	})
	if err != nil && err.Error() != said {
		s.waitingSaid = err.Error()
		s.log.Error("the list of waiting machines is not written", "why", s.waitingSaid)
	}
}
