package auditsink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A directory is the folder of a file system.
type directory struct{ root *os.Root }

// openDir opens a directory, creates it if need be, and tries whether files can
// be created in it, so that a service that cannot write its audit trail does
// not start.
func openDir(path string) (*directory, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, err
		}
		if err := syncDir(os.Open(filepath.Dir(path))); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &directory{root}
	if err := d.try(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return d, nil
}

func (d *directory) try() error {
	const name = ".writable"
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), d.root.Remove(name))
}

func (d *directory) Create(name string) (file, error) {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syncDir(d.root.Open(".")); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &spoolFile{file: f, root: d.root, name: name}, nil
}

func (d *directory) Close() error { return d.root.Close() }

// syncDir makes the names in a directory durable, and closes it.
func syncDir(dir *os.File, err error) error {
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// allot is how much space is filled with zeros at once, in bytes. Entries that
// come to lie there change neither the length of the file nor where its blocks
// are, so to make them durable is one write to the disk and no change to the
// file system's own records.
const allot = 256 << 10

// A spoolFile is a file with zeros behind what was written, for what comes.
type spoolFile struct {
	file *os.File
	root *os.Root
	name string
	end  int64 // bytes written
	size int64 // bytes of the file, zeros included
}

// Write implements io.Writer.
func (f *spoolFile) Write(p []byte) (int, error) {
	if end := f.end + int64(len(p)); end > f.size {
		if err := f.grow(end); err != nil {
			return 0, err
		}
	}
	n, err := f.file.WriteAt(p, f.end)
	f.end += int64(n)
	return n, err
}

// grow adds zeros up to the next multiple of allot after an offset.
func (f *spoolFile) grow(end int64) error {
	size := (end/allot + 1) * allot
	if _, err := f.file.WriteAt(make([]byte, size-f.size), f.size); err != nil {
		return fmt.Errorf("fill with zeros: %w", err)
	}
	f.size = size
	return nil
}

// Sync makes the content durable, and then looks at the name: writing to a file
// that someone has deleted succeeds, and leaves nothing.
func (f *spoolFile) Sync() error {
	if err := syncData(f.file); err != nil {
		return err
	}
	mine, err := f.file.Stat()
	if err != nil {
		return err
	}
	there, err := f.root.Stat(f.name)
	if err != nil {
		return err
	}
	if !os.SameFile(mine, there) {
		return fmt.Errorf("another file is in the place of %s", f.name)
	}
	return nil
}

// Close cuts the zeros off. If that is lost in a crash they stay, which says no
// more than that there was one.
func (f *spoolFile) Close() error {
	err := f.file.Truncate(f.end)
	return errors.Join(err, f.file.Close())
}
