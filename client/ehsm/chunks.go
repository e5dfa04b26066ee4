package ehsm

import (
	"bufio"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	sealedSize = chunkSize + tagSize
	maxChunks  = 1 << 32
	nonceSize  = 12
)

// errClosed is returned by a chunk writer after Close.
var errClosed = errors.New("write envelope: already closed")

// A chunkCipher seals or opens one chunk after the other.
type chunkCipher struct {
	aead   cipher.AEAD
	aad    [32]byte // the header MAC
	number uint64   // of the next chunk
}

// next returns the nonce of the next chunk. No number is used twice.
func (c *chunkCipher) next(last bool) (nonce [nonceSize]byte, err error) {
	if c.number == maxChunks {
		return nonce, errors.New("envelope has too many chunks")
	}
	binary.BigEndian.PutUint64(nonce[3:11], c.number)
	if last {
		nonce[11] = 1
	}
	c.number++
	return nonce, nil
}

// A chunkWriter encrypts in chunks. One chunk is held back until it is known not
// to be the last.
type chunkWriter struct {
	chunkCipher
	dst  io.Writer
	buf  []byte // plaintext that waits, at most chunkSize; room for the tag
	fail error  // of an earlier call
}

func newChunkWriter(dst io.Writer, aead cipher.AEAD, mac [32]byte) *chunkWriter {
	return &chunkWriter{
		chunkCipher: chunkCipher{aead: aead, aad: mac},
		dst:         dst,
		buf:         make([]byte, 0, sealedSize),
	}
}

// Write implements io.Writer.
func (w *chunkWriter) Write(p []byte) (n int, err error) {
	for w.fail == nil && n < len(p) {
		if len(w.buf) == chunkSize {
			w.fail = w.flush(false)
			continue
		}
		m := min(chunkSize-len(w.buf), len(p)-n)
		w.buf = append(w.buf, p[n:n+m]...)
		n += m
	}
	return n, w.fail
}

// Close writes the last chunk. A second Close is an error.
func (w *chunkWriter) Close() error {
	if w.fail != nil {
		return w.fail
	}
	err := w.flush(true)
	w.fail = errClosed
	return err
}

// flush encrypts the buffer in place, writes it out and empties it.
func (w *chunkWriter) flush(last bool) error {
	nonce, err := w.next(last)
	if err != nil {
		return err
	}
	sealed := w.aead.Seal(w.buf[:0], nonce[:], w.buf, w.aad[:])
	w.buf = w.buf[:0]
	if _, err := w.dst.Write(sealed); err != nil {
		return fmt.Errorf("write envelope: %w", err)
	}
	return nil
}

// A chunkReader decrypts chunks.
type chunkReader struct {
	chunkCipher
	src   *bufio.Reader
	buf   []byte // one sealed chunk, opened in place
	plain []byte // part of buf that was not read yet
	end   error  // io.EOF after the last chunk, or why there is no more
}

func newChunkReader(src io.Reader, aead cipher.AEAD, mac [32]byte) *chunkReader {
	return &chunkReader{
		chunkCipher: chunkCipher{aead: aead, aad: mac},
		src:         bufio.NewReaderSize(src, sealedSize+1),
		buf:         make([]byte, sealedSize),
	}
}

// Read implements io.Reader.
func (r *chunkReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.plain) == 0 {
		if r.end != nil {
			return 0, r.end
		}
		r.end = r.fill()
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

// fill reads and opens the next chunk. It returns io.EOF with the last one.
func (r *chunkReader) fill() error {
	n, err := io.ReadFull(r.src, r.buf)
	last := false
	switch {
	case err == nil:
		// A full chunk is the last one if nothing follows.
		_, err = r.src.Peek(1)
		last = errors.Is(err, io.EOF)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		last, err = true, nil
	}
	if err != nil && !last {
		return fmt.Errorf("read envelope: %w", err)
	}
	first := r.number == 0
	nonce, err := r.next(last)
	if err != nil {
		return err
	}
	plain, err := r.aead.Open(r.buf[:0], nonce[:], r.buf[:n], r.aad[:])
	if err != nil || len(plain) == 0 && !first {
		return ErrEnvelope // an empty chunk stands for empty content only
	}
	r.plain = plain
	if last {
		return io.EOF
	}
	return nil
}
