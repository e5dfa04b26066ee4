package rest

import (
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/host/relay"
)

// Replies to requests that reach no core.
var (
	missing     = []byte(`{"code":400,"message":"Missing required parameters","result":{}}`)
	notFound    = []byte(`{"code":404,"message":"API Not Found","result":{}}`)
	tooLarge    = []byte(`{"code":400,"message":"Request body too large.","result":{}}`)
	busy        = relay.Busy().Body
	invalidJSON = []byte(`{"code":400,"message":"Invalid JSON","result":{}}`)
)

var errTooLarge = errors.New("body is over the limit")

const (
	firstBody = 1 << 10  // bytes of a new buffer; most requests are shorter
	keptBody  = 64 << 10 // buffers beyond this go to the garbage collector
)

// buffer returns an empty buffer for a body.
func (h *Handler) buffer() *[]byte {
	if b, ok := h.bodies.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, firstBody)
	return &b
}

// release takes back what buffer gave. Bodies may carry plaintexts, so their
// memory is cleared before others use it.
func (h *Handler) release(b *[]byte) {
	clear((*b)[:len(*b)])
	if cap(*b) <= keptBody {
		*b = (*b)[:0]
		h.bodies.Put(b)
	}
}

// readBody reads the whole body into *buf. It is errTooLarge over limit bytes,
// of which a body with a stated length then is not read at all.
func readBody(r *http.Request, limit int, buf *[]byte) ([]byte, error) {
	switch n := r.ContentLength; {
	case n > int64(limit):
		return nil, errTooLarge
	case n >= 0:
		*buf = slices.Grow((*buf)[:0], int(n))[:n]
		_, err := io.ReadFull(r.Body, *buf)
		return *buf, err
	}
	for b := (*buf)[:0]; ; {
		b = slices.Grow(b, min(firstBody, limit+1-len(b)))
		n, err := r.Body.Read(b[len(b):min(cap(b), limit+1)])
		b = b[:len(b)+n]
		*buf = b
		switch {
		case len(b) > limit:
			return nil, errTooLarge
		case err == io.EOF:
			return b, nil
		case err != nil:
			return nil, err
		}
	}
}
