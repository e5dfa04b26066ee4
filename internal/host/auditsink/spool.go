package auditsink

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

// A folder is where spool files are created.
type folder interface {
	// Create makes a new file, and fails if there is one of that name. When it
	// returns, the name is durable.
	Create(name string) (file, error)
	// Close gives up the folder, not its open files.
	Close() error
}

// A file is a spool file.
type file interface {
	io.Writer
	// Sync makes what was written durable, and fails if the file is no longer
	// in its folder.
	Sync() error
	Close() error
}

// A spool is the file in use and its successors. It belongs to the writer.
type spool struct {
	dir      folder
	limit    int64     // bytes of a file
	file     file      // nil before the first entry
	instance wire.UUID // of all entries in file
	size     int64     // bytes in file
	files    uint64    // created
}

// write appends frames, of one instance or several, and makes them durable.
func (p *spool) write(frames []byte) error {
	for rest := frames; len(rest) > 0; {
		n := p.fit(rest)
		if n == 0 {
			if err := p.rotate(rest); err != nil {
				return err
			}
			continue
		}
		if _, err := p.file.Write(rest[:n]); err != nil {
			return fmt.Errorf("write audit entries: %w", err)
		}
		p.size += int64(n)
		rest = rest[n:]
	}
	if len(frames) == 0 {
		return nil
	}
	return p.sync()
}

func (p *spool) sync() error {
	if err := p.file.Sync(); err != nil {
		return fmt.Errorf("sync audit entries: %w", err)
	}
	return nil
}

// fit returns how many bytes of frames go into the file in use. A file takes
// entries of one instance up to its limit, and at least one.
func (p *spool) fit(frames []byte) int {
	n, rest := 0, frames
	for p.file != nil && len(rest) > 0 {
		f, after, err := trail.CutFrame(rest)
		if err != nil {
			panic("auditsink: frames were checked by Put: " + err.Error())
		}
		id, _, _ := trail.Peek(f.Entry)
		if at := p.size + int64(n); id != p.instance || at > 0 && at+int64(f.Size()) > p.limit {
			break
		}
		n, rest = n+f.Size(), after
	}
	return n
}

// rotate begins a file for frames.
func (p *spool) rotate(frames []byte) error {
	if err := p.finish(); err != nil {
		return err
	}
	f, _, err := trail.CutFrame(frames)
	if err != nil {
		panic("auditsink: frames were checked by Put: " + err.Error())
	}
	id, first, _ := trail.Peek(f.Entry)
	if p.file, err = p.dir.Create(fmt.Sprintf("%s-%020d.trail", id, first)); err != nil {
		return fmt.Errorf("create audit file: %w", err)
	}
	p.instance, p.size, p.files = id, 0, p.files+1
	return nil
}

// finish makes the file in use durable and closes it.
func (p *spool) finish() error {
	if p.file == nil {
		return nil
	}
	err := errors.Join(p.sync(), p.file.Close())
	p.file = nil
	return err
}

func (p *spool) close() error { return errors.Join(p.finish(), p.dir.Close()) }

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
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syncDir(d.root.Open(".")); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &spoolFile{f, d.root, name}, nil
}

func (d *directory) Close() error { return d.root.Close() }

// syncDir makes the names in a directory durable, and closes it.
func syncDir(dir *os.File, err error) error {
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

type spoolFile struct {
	*os.File
	root *os.Root
	name string
}

// Sync is fsync, and then a look at the name: writing to a file that someone
// has deleted succeeds, and leaves nothing.
func (f *spoolFile) Sync() error {
	if err := f.File.Sync(); err != nil {
		return err
	}
	mine, err := f.File.Stat()
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
