package rest

import (
	"bytes"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	// defaultMaxBatchBody is how long the body of a batch may be, in bytes, and the most
	// that it can be.
	defaultMaxBatchBody = api.MaxBatchBody
	// maxBatchBodies is how long those bodies of batches may be together that are too
	// long for other actions, in bytes.
	maxBatchBodies = 64 << 20
	// batchHead is where appid and timestamp of such a body must be, in bytes.
	batchHead = 1 << 10
	// widestWindow is the longest window for requests that a domain can have.
	widestWindow = time.Hour
)

// A budget is what may be taken of something that all requests share.
type budget struct{ left atomic.Int64 } // bytes

// take takes n bytes, and reports false if there are not as many left.
func (b *budget) take(n int) bool {
	if b.left.Add(int64(-n)) < 0 {
		b.left.Add(int64(n))
		return false
	}
	return true
}

func (b *budget) giveBack(n int) { b.left.Add(int64(n)) }

// readBatch reads a body that is too long for other actions. Nothing is made room for
// before appid and timestamp look right, and no more than about twice of what has come.
// What it takes of the budget is taken, also if it fails.
func (h *Handler) readBatch(r *http.Request, buf *[]byte, taken *int) (body, refusal []byte) {
	n := int(min(r.ContentLength, math.MaxInt32))
	if n > h.maxBatchBody {
		return nil, tooLarge
	}
	b := slices.Grow((*buf)[:0], batchHead)[:batchHead]
	if _, err := io.ReadFull(r.Body, b); err != nil {
		return nil, invalidJSON
	}
	*buf = b
	if !plausible(b, h.now()) {
		return nil, tooLarge // as it is for any other request
	}
	for len(b) < n {
		if len(b) == cap(b) {
			size := min(2*cap(b), n)
			more := size - cap(b)
			if !h.batches.take(more) {
				return nil, busy
			}
			*taken += more
			grown := make([]byte, len(b), size)
			copy(grown, b)
			clear(b)
			b = grown
		}
		m, err := io.ReadFull(r.Body, b[len(b):min(cap(b), n)])
		b = b[:len(b)+m]
		*buf = b
		if err != nil {
			return nil, invalidJSON
		}
	}
	return b, nil
}

// plausible reports whether the first bytes of a body are those of a sealed request, or
// have an appid and a timestamp of about now. Whether they are anybody's, the core knows.
func plausible(head []byte, now time.Time) bool {
	if bytes.HasPrefix(head, []byte(`{"sealed":"`)) {
		return true
	}
	var tenant, recent bool
	for name, value := range textMembers(head) {
		switch string(name) {
		case "appid":
			_, err := wire.ParseUUID(string(value))
			tenant = err == nil
		case "timestamp":
			t, err := strconv.ParseInt(string(value), 10, 64)
			recent = err == nil && len(value) == 13 && now.Sub(time.UnixMilli(t)).Abs() < widestWindow
		}
		if tenant && recent {
			return true
		}
	}
	return false
}

// textMembers yields names and values of the members that a JSON object begins with, as
// long as the values are strings without escapes.
func textMembers(text []byte) func(yield func(name, value []byte) bool) {
	return func(yield func(name, value []byte) bool) {
		for first := true; ; first = false {
			var name, value []byte
			ok := skip(&text, "{", ",", first) && cutText(&text, &name) && skip(&text, ":", ":", true) && cutText(&text, &value)
			if !ok || !yield(name, value) {
				return
			}
		}
	}
}

// skip cuts white space and one of two marks off text.
func skip(text *[]byte, mark, other string, first bool) bool {
	if !first {
		mark = other
	}
	rest, ok := bytes.CutPrefix(bytes.TrimLeft(*text, " \t\r\n"), []byte(mark))
	*text = bytes.TrimLeft(rest, " \t\r\n")
	return ok
}

// cutText cuts a string without escapes off text.
func cutText(text, s *[]byte) bool {
	rest, ok := bytes.CutPrefix(*text, []byte(`"`))
	end := bytes.IndexByte(rest, '"')
	if !ok || end < 0 || bytes.IndexByte(rest[:end], '\\') >= 0 {
		return false
	}
	*s, *text = rest[:end], rest[end+1:]
	return true
}
