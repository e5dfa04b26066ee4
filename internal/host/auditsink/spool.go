package auditsink

import (
	"errors"
	"fmt"
	"io"

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
	// Close leaves the file with what was written, and nothing behind it.
	Close() error
}

// A spool is the file in use and its successors. It belongs to the writer.
type spool struct {
	dir      folder
	limit    int64     // bytes of a file
	file     file      // nil before the first entry
	instance wire.UUID // of all entries in file
	size     int64     // bytes in file
	unsynced int       // bytes of those that may not be on disk
	files    uint64    // created
}

// write appends frames, of one instance or several, and makes them durable.
func (p *spool) write(frames []byte) error {
	for rest := frames; len(rest) > 0; {
		n := p.fit(rest)
		if n == 0 {
			if err := p.next(rest); err != nil {
				return err
			}
			continue
		}
		if _, err := p.file.Write(rest[:n]); err != nil {
			return fmt.Errorf("write audit entries: %w", err)
		}
		p.size += int64(n)
		p.unsynced += n
		rest = rest[n:]
	}
	if len(frames) == 0 {
		return nil
	}
	return p.sync()
}

// next makes room for the frames that did not fit.
func (p *spool) next(frames []byte) error {
	if p.unsynced > 0 {
		return p.sync()
	}
	return p.rotate(frames)
}

func (p *spool) sync() error {
	if err := p.file.Sync(); err != nil {
		return fmt.Errorf("sync audit entries: %w", err)
	}
	p.unsynced = 0
	return nil
}

// fit returns how many bytes of frames go into the file in use before it must be
// synced. A file takes entries of one instance up to its limit, and at least
// one.
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
		if p.unsynced+n+f.Size() > trail.MaxWrite {
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
	var err error
	if p.unsynced > 0 {
		err = p.sync()
	}
	err = errors.Join(err, p.file.Close())
	p.file = nil
	return err
}

func (p *spool) close() error { return errors.Join(p.finish(), p.dir.Close()) }
