package collateral

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// A disk keeps collateral in a directory: a bundle of one for each query, which
// the file's time dates. All of it is public. The files of a node are its own:
// two nodes have two directories.
type disk struct {
	dir string
	max int // files
}

const (
	cacheSuffix = ".collateral"
	tempSuffix  = ".new"
)

// openDisk makes the directory and removes what a crash has left in it.
func openDisk(dir string, max int) (*disk, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("collateral cache: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"+tempSuffix))
	if err != nil {
		return nil, fmt.Errorf("collateral cache: %w", err)
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("collateral cache: %w", err)
		}
	}
	return &disk{dir, max}, nil
}

func (d *disk) path(q Query) string { return filepath.Join(d.dir, Format(q)+cacheSuffix) }

// load returns what is kept for q and when it was fetched. It wraps
// fs.ErrNotExist where there is nothing; a damaged file is another error.
func (d *disk) load(q Query) (c verify.Collateral, fetched time.Time, err error) {
	info, err := os.Stat(d.path(q))
	if err != nil {
		return c, fetched, err
	}
	b, err := readLimited(d.path(q), MaxBundleFile)
	if err != nil {
		return c, fetched, err
	}
	all, err := DecodeBundle(b)
	if err != nil {
		return c, fetched, fmt.Errorf("%s: %w", d.path(q), err)
	}
	if len(all) != 1 {
		return c, fetched, fmt.Errorf("%s: %w: it has %d platforms, want 1", d.path(q), ErrBundle, len(all))
	}
	_, err = contentsFor(&all[0], q)
	return all[0], info.ModTime(), err
}

// save keeps c for q, and forgets what has not been refreshed for longest if that
// is too many files. After a crash the file is the old or the new one.
func (d *disk) save(q Query, c verify.Collateral, fetched time.Time) error {
	b, err := EncodeBundle([]verify.Collateral{c})
	if err != nil {
		return err
	}
	temp := d.path(q) + tempSuffix
	if err := writeDurably(temp, b); err != nil {
		return errors.Join(fmt.Errorf("write collateral: %w", err), os.Remove(temp))
	}
	if err := os.Chtimes(temp, fetched, fetched); err != nil {
		return fmt.Errorf("date collateral: %w", err)
	}
	if err := os.Rename(temp, d.path(q)); err != nil {
		return fmt.Errorf("keep collateral: %w", err)
	}
	if err := syncDir(d.dir); err != nil {
		return fmt.Errorf("keep collateral: %w", err)
	}
	return d.prune()
}

func writeDurably(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// prune removes the files that were refreshed first, down to the limit.
func (d *disk) prune() error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("list collateral: %w", err)
	}
	var files []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), cacheSuffix) {
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for ; len(files) > d.max; files = files[1:] {
		if err := os.Remove(filepath.Join(d.dir, files[0].Name())); err != nil {
			return fmt.Errorf("forget collateral: %w", err)
		}
	}
	return nil
}
