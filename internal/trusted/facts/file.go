package facts

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// HeadFile is where a program keeps the head, in its domain directory. It is not
// sealed: a host that can write there can put an older one back in any case, or take
// it away. Layout: docs/formats.md#negative-facts-v1.
const HeadFile = "facts.json"

// ErrHead says that the file of the head is damaged.
var ErrHead = errors.New("the kept head of the log of negative facts is damaged")

type headFile struct {
	Entries uint64 `json:"entries"`
	Hash    string `json:"hash"` // of the last entry, hex
}

// ReadHead returns the head that is kept in dir, the zero Head if there is none.
// Errors: ErrHead.
func ReadHead(dir string) (h Head, err error) {
	path := filepath.Join(dir, HeadFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return h, fmt.Errorf("read the head of the log of negative facts: %w", err)
	}
	if h, err = parseHead(b); err != nil {
		return h, fmt.Errorf("%w: %s; docs/operations.md says when to remove it", err, path)
	}
	return h, nil
}

// parseHead reads what encode wrote, and nothing else.
func parseHead(b []byte) (h Head, err error) {
	var f headFile
	if err := json.Unmarshal(b, &f); err != nil {
		return h, ErrHead
	}
	hash, err := hex.DecodeString(f.Hash)
	if err != nil || len(hash) != len(h.Hash) || f.Entries == 0 {
		return h, ErrHead
	}
	h = Head{f.Entries, [32]byte(hash)}
	if !bytes.Equal(h.encode(), b) {
		return Head{}, ErrHead
	}
	return h, nil
}

// encode is the content of the file.
func (h Head) encode() []byte {
	b, _ := json.Marshal(headFile{h.Count, hex.EncodeToString(h.Hash[:])}) // of a number and a text
	return append(b, '\n')
}

// WriteHead keeps a head in dir, which exists, in place of the one before. It is on
// the disk when WriteHead returns nil.
func WriteHead(dir string, h Head) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("keep the head of the log of negative facts: %w", err)
		}
	}()
	tmp := filepath.Join(dir, "."+HeadFile)
	if err := writeSynced(tmp, h.encode()); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, HeadFile)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Sync()
}

// A Kept is an Anchor whose head is in a file before anybody is told of it.
type Kept struct {
	*Anchor
	dir string

	mu   sync.Mutex
	kept Head
}

// OpenKept returns an Anchor at the head that is kept in dir. Errors: ErrHead.
func OpenKept(dir string) (*Kept, error) {
	h, err := ReadHead(dir)
	if err != nil {
		return nil, err
	}
	return &Kept{Anchor: NewAnchor(h), dir: dir, kept: h}, nil
}

// Hear is Anchor.Hear. Errors: ErrFork, and those of WriteHead: the head counts, but
// not after the end of the program.
func (k *Kept) Hear(s Statement, binds bool) error {
	err := k.Anchor.Hear(s, binds)
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.Head()
	if h == k.kept {
		return err
	}
	wrong := WriteHead(k.dir, h)
	if wrong == nil {
		k.kept = h
	}
	return errors.Join(err, wrong)
}

// keepEvery is the least time between two writings of Follow.
const keepEvery = 50 * time.Millisecond

// Follow keeps the head of a log in dir whenever it grows, until ctx ends, and once
// more then. It is for a core without dkeyservers. failed is told of errors, of those
// in a row the first.
func Follow(ctx context.Context, l *Log, dir string, failed func(error)) {
	var kept Head
	failing := false
	for {
		s, grown := l.Say()
		if s.Head.Count > kept.Count {
			err := WriteHead(dir, s.Head)
			if err != nil && !failing {
				failed(err)
			}
			if failing = err != nil; !failing {
				kept = s.Head
			}
		}
		if ctx.Err() != nil {
			return
		}
		select {
		case <-grown:
			pause(ctx, keepEvery)
		case <-ctx.Done():
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
