//go:build !darwin && !freebsd && !linux

package sqlite

import (
	"errors"
	"os"
)

// lock refuses: without a lock that ends with its process, two managers could
// open one database.
func lock(string) (*os.File, error) {
	return nil, errors.New("this platform has no file locks the store can use; run it on Linux")
}
