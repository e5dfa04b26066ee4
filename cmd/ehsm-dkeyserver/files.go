package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/provision"
)

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
	var rotated string // about a DomainKey that is not what it should be
	defer s.saveWaiting()
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
			if text := errorText(s.rotate(d)); text != rotated {
				if rotated = text; text != "" { // and again at the next look
					s.log.Error("the DomainKey is not what the manifest asks for", "why", text)
				}
			}
			s.waiting.Drop(d.Names)
		}
		s.saveWaiting()
		select {
		case <-tick.C:
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
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
	s.writing.Lock()
	defer s.writing.Unlock()
	return d.Each(func(version uint64, file []byte) error {
		if have, err := domainkey.ReadManifest(s.settings.Domain, version); err == nil && string(have) == string(file) {
			return nil
		}
		return domainkey.WriteManifest(s.settings.Domain, version, file)
	})
}
