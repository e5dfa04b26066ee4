package domainkey

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Later manifests of a domain are beside its genesis as manifest-N.json, N the
// version.
const (
	manifestPrefix = "manifest-"
	manifestSuffix = ".json"
	maxManifests   = 4096
)

// ErrChain is returned for manifests in a domain directory that are not named by
// their versions, or too many.
var ErrChain = errors.New("manifests of the domain directory")

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
		path := filepath.Join(dir, manifestFile(version))
		if b, err = readLimited(path); err != nil {
			return nil, fmt.Errorf("read a manifest: %w", err)
		}
		if state, err = state.Next(b, time.Time{}); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if state.Version != version {
			return nil, fmt.Errorf("%w: %s has version %d", ErrChain, path, state.Version)
		}
	}
	return state, nil
}

func manifestFile(version uint64) string {
	return manifestPrefix + strconv.FormatUint(version, 10) + manifestSuffix
}

// listManifests returns the versions that the names in dir have, in order.
func listManifests(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the manifests: %w", err)
	}
	var versions []uint64
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), manifestPrefix) {
			continue
		}
		digits := strings.TrimSuffix(strings.TrimPrefix(e.Name(), manifestPrefix), manifestSuffix)
		version, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || manifestFile(version) != e.Name() {
			return nil, fmt.Errorf("%w: %s is no name of one, such as %s", ErrChain, e.Name(), manifestFile(2))
		}
		if versions = append(versions, version); len(versions) > maxManifests {
			return nil, fmt.Errorf("%w: more than %d", ErrChain, maxManifests)
		}
	}
	slices.SortFunc(versions, cmp.Compare[uint64])
	return versions, nil
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
