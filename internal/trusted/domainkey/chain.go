package domainkey

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// readState verifies the manifests of a domain directory. The host can take the
// last ones away, which no single node notices across a restart; see
// docs/domain.md#rollback.
func readState(dir string) (*manifest.State, error) {
	path := filepath.Join(dir, GenesisFile)
	b, err := readLimited(path)
	if err != nil {
		return nil, fmt.Errorf("read the genesis: %w", err)
	}
	state, err := manifest.Open(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	versions, err := listManifests(dir)
	if err != nil {
		return nil, err
	}
	for _, version := range versions {
		path := filepath.Join(dir, manifest.FileName(version))
		if b, err = readLimited(path); err != nil {
			return nil, fmt.Errorf("read a manifest: %w", err)
		}
		if state, err = state.Next(b, time.Time{}); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if state.Version != version {
			return nil, fmt.Errorf("%w: %s has version %d", manifest.ErrFiles, path, state.Version)
		}
	}
	return state, nil
}

func listManifests(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the manifests: %w", err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return manifest.Versions(names)
}

// readLimited reads a file of the host's into memory, and no more of it than
// shows that it is too long.
func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBundle+1))
}
