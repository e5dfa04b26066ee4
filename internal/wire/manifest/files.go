package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// GenesisFile is the name of the genesis in a domain directory. Later manifests
// are beside it, named by FileName.
const GenesisFile = "genesis.json"

const (
	filePrefix = "manifest-"
	fileSuffix = ".json"
	maxFiles   = 4096
)

// ErrFiles is returned for manifests that are not named by their versions, or too
// many.
var ErrFiles = errors.New("manifests of the domain directory")

// FileName is the name of a later manifest, such as manifest-2.json.
func FileName(version uint64) string {
	return filePrefix + strconv.FormatUint(version, 10) + fileSuffix
}

// Versions returns, in order, the versions of the later manifests among the names
// of files in a domain directory. Errors: ErrFiles.
func Versions(names []string) ([]uint64, error) {
	var versions []uint64
	for _, name := range names {
		if !strings.HasPrefix(name, filePrefix) {
			continue
		}
		digits := strings.TrimSuffix(strings.TrimPrefix(name, filePrefix), fileSuffix)
		version, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || FileName(version) != name {
			return nil, fmt.Errorf("%w: %s is no name of one, such as %s", ErrFiles, name, FileName(2))
		}
		if versions = append(versions, version); len(versions) > maxFiles {
			return nil, fmt.Errorf("%w: more than %d", ErrFiles, maxFiles)
		}
	}
	slices.Sort(versions)
	return versions, nil
}
