package main

import (
	"context"
	"errors"
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

// look is how often the directory is looked at.
const look = time.Second

// watch takes manifests that operators put into the directory, and writes there
// what came from peers, until ctx ends.
func (s *server) watch(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	var seen time.Time // of the directory
	var kept uint64    // version that is written
	var said string    // about one that is not
	for {
		var changed <-chan struct{}
		if d := s.known.Get(); d != nil {
			changed = d.Changed()
			if at := changedAt(s.settings.Domain); !at.Equal(seen) {
				seen = at
				s.read(d)
			}
			if version := d.Manifest(); version != kept {
				if err := s.write(d); err == nil {
					s.log.Info("manifests are written", "version", version)
					kept, said = version, ""
				} else if text := err.Error(); text != said { // and again at the next look
					s.log.Error("manifests are not written", "version", version, "why", text)
					said = text
				}
			}
		}
		select {
		case <-tick.C:
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// changedAt is when names in a directory changed last.
func changedAt(dir string) time.Time {
	info, err := os.Stat(dir)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

func (s *server) read(d *provision.Domain) {
	files, err := domainkey.Files(s.settings.Domain)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("manifests are not read", "why", err.Error())
		}
		return
	}
	s.add(d, files[1:])
}

// write puts into the directory what is not there.
func (s *server) write(d *provision.Domain) error {
	return d.Each(func(version uint64, file []byte) error {
		if have, err := domainkey.ReadManifest(s.settings.Domain, version); err == nil && string(have) == string(file) {
			return nil
		}
		return domainkey.WriteManifest(s.settings.Domain, version, file)
	})
}

// writeWaiting keeps the list of machines that wait.
func (s *server) writeWaiting(list []byte) {
	path := filepath.Join(s.settings.Domain, WaitingFile)
	if err := os.WriteFile(path, list, 0o600); err != nil {
		s.log.Error("the list of waiting machines is not written", "why", err.Error())
		return
	}
	s.log.Warn("a machine waits for admission", "list", path)
}
