package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

const (
	partialSuffix = ".partial"
	aboutSuffix   = ".partial.json" // what the partial output is of
)

// A partial is the output of a rewrap as far as it has come, under another name.
type partial struct {
	*os.File
	path string // of the whole output
}

// rewrapAbout says what a partial output is of. Another one is not gone on with.
type rewrapAbout struct {
	Size     int64  `json:"size"`     // of the input, in bytes
	Modified int64  `json:"modified"` // Unix nanoseconds
	Flags    string `json:"flags"`    // SHA-256 in hex; additional data may be confidential
}

func (f *rewrapFlags) about(in fs.FileInfo) rewrapAbout {
	b, _ := json.Marshal([]string{f.key, f.to, f.aad, f.next, f.field}) // texts always encode
	sum := sha256.Sum256(b)
	return rewrapAbout{in.Size(), in.ModTime().UnixNano(), hex.EncodeToString(sum[:])}
}

// openPartial starts the output of a rewrap, or opens that of one that was interrupted.
func openPartial(in io.Reader, f rewrapFlags) (*partial, error) {
	file, ok := in.(interface{ Stat() (fs.FileInfo, error) })
	if !ok {
		return nil, fmt.Errorf("read %s: no file", f.in)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: no regular file", f.in)
	}
	if _, err := os.Lstat(f.out); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("write %s: file exists", f.out)
	}
	about := f.about(info)
	text, err := os.ReadFile(f.out + aboutSuffix)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return startPartial(f.out, about)
	case err != nil:
		return nil, err
	}
	var seen rewrapAbout
	if json.Unmarshal(text, &seen) != nil || seen != about {
		return nil, withHint(fmt.Errorf("%s is of another input or of other flags", f.out+partialSuffix),
			"remove it and "+f.out+aboutSuffix+" to begin anew")
	}
	out, err := os.OpenFile(f.out+partialSuffix, os.O_RDWR|os.O_CREATE, 0o600)
	return &partial{out, f.out}, err
}

func startPartial(path string, about rewrapAbout) (*partial, error) {
	out, err := os.OpenFile(path+partialSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	text, _ := json.Marshal(about) // it always encodes
	if err := os.WriteFile(path+aboutSuffix, append(text, '\n'), 0o600); err != nil {
		return nil, errors.Join(err, out.Close(), os.Remove(out.Name()))
	}
	return &partial{out, path}, nil
}

// write has lines written and synced.
func (p *partial) write(produce func(io.Writer) error) error {
	w := bufio.NewWriterSize(p.File, 64<<10)
	err := produce(w)
	return errors.Join(err, w.Flush(), p.Sync())
}

// finish gives the output its name.
func (p *partial) finish() error {
	if err := os.Rename(p.Name(), p.path); err != nil {
		return err
	}
	return os.Remove(p.path + aboutSuffix)
}

// skip passes over the lines that the output has already, counts those that failed, and
// cuts off what there is of another line.
func (r *rewrapping) skip(lines *bufio.Reader) error {
	written := bufio.NewReaderSize(r.out.File, 64<<10)
	size := int64(0)
	for {
		have, err := readLine(written)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", r.out.Name(), err)
		}
		if have[len(have)-1] != '\n' {
			break // also the last one of an input that ends so: it is made once more
		}
		text, err := readLine(lines)
		if err != nil {
			return fmt.Errorf("%s has more lines than %s", r.out.Name(), r.flags.in)
		}
		if bytes.Equal(have, text) && len(bytes.TrimSpace(text)) > 0 {
			r.failed++
		}
		size += int64(len(have))
		r.line++
	}
	if err := r.out.Truncate(size); err != nil {
		return err
	}
	_, err := r.out.Seek(size, io.SeekStart)
	return err
}
