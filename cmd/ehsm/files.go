package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/term"
)

// stdio is the name of a file that stands for standard input or output.
const stdio = "-"

// open returns the file to read and its size, -1 if that is not known. The empty
// path is standard input.
func (a *app) open(ctx context.Context, path string) (io.ReadCloser, int64, error) {
	if path == "" || path == stdio {
		return io.NopCloser(interruptible{ctx, a.stdin}), -1, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		f.Close()
		return nil, 0, err
	case info.IsDir():
		f.Close()
		return nil, 0, fmt.Errorf("read %s: is a directory", path)
	case !info.Mode().IsRegular():
		return f, -1, nil
	}
	return stoppable{ctx, f}, info.Size(), nil
}

// stoppable is a file whose reading ends with ctx.
type stoppable struct {
	ctx context.Context
	*os.File
}

// Read implements io.Reader.
func (r stoppable) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.File.Read(p)
}

// WriteTo hides the method of os.File, which does not look at ctx.
func (r stoppable) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{r})
}

// interruptible is a reader that returns when ctx ends, even if the one below is
// blocked: on a terminal, nothing else can wake it.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader. After it returned the context's error, the reader
// must not be used again.
func (r interruptible) Read(p []byte) (int, error) {
	type result struct {
		b   []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		b := make([]byte, len(p)) // p is the caller's again after an interrupt
		n, err := r.r.Read(b)
		done <- result{b[:n], err}
	}()
	select {
	case res := <-done:
		return copy(p, res.b), res.err
	case <-r.ctx.Done():
		return 0, context.Cause(r.ctx)
	}
}

// An outFile is written beside its place and moved there when it is complete.
type outFile struct {
	*os.File
	path string // "" if the file was written in place, or is moved already
}

// createFile starts a file that only its owner may read; one that exists keeps
// its mode. What is no regular file, such as a device, is written in place.
func createFile(path string) (*outFile, error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("write %s: is a directory", path)
	case !info.Mode().IsRegular():
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		return &outFile{File: f}, nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, err
	}
	if info != nil {
		if err := f.Chmod(info.Mode().Perm()); err != nil {
			f.Close()
			os.Remove(f.Name())
			return nil, err
		}
	}
	return &outFile{f, path}, nil
}

// commit makes the file appear at its place with all that was written.
func (f *outFile) commit() error {
	if f.path == "" {
		return f.Close()
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	if err := os.Rename(f.Name(), f.path); err != nil {
		return err
	}
	f.path = ""
	return nil
}

// abort removes what was written, unless commit succeeded.
func (f *outFile) abort() {
	f.Close()
	if f.path != "" {
		os.Remove(f.Name())
	}
}

// write has a function produce the content of path, standard output if path is
// empty. A file appears only if the function succeeds; on standard output,
// content that was written before a failure stands.
func (a *app) write(path string, produce func(io.Writer) error) error {
	if path == "" || path == stdio {
		return produce(a.stdout)
	}
	f, err := createFile(path)
	if err != nil {
		return err
	}
	defer f.abort()
	if err := produce(f); err != nil {
		return err
	}
	return f.commit()
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
