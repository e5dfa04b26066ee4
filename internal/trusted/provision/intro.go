package provision

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// What a client says before there is a channel, in one byte.
const (
	askManifests = 1 // send the manifests, which are public
	openChannel  = 2 // what follows is the channel
	askState     = 3 // of a dkeycache: say how far it is, and end the connection
)

// maxChainSize bounds the manifests that are sent before a channel, in bytes.
const maxChainSize = 16 << 20

// askForManifests asks the other end of conn for the manifests of its domain, the
// genesis first. It does not verify them: anybody may have answered. There are
// none where the server does not know its domain yet. Errors: ErrMessage, and
// those of the stream.
func askForManifests(conn io.ReadWriter) ([][]byte, error) {
	if _, err := conn.Write([]byte{askManifests}); err != nil {
		return nil, fmt.Errorf("ask for the manifests: %w", err)
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, fmt.Errorf("read the manifests: %w", err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxChainSize { // check: chain-size
		return nil, fmt.Errorf("%w: manifests of %d bytes, limit %d", ErrMessage, n, maxChainSize)
	}
	b, err := io.ReadAll(io.LimitReader(conn, int64(n))) // grows with what arrives
	if err == nil && len(b) < int(n) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read the manifests: %w", err)
	}
	return decodeChain(b)
}

// decodeChain reads the answer to askManifests. Errors: ErrMessage.
func decodeChain(b []byte) ([][]byte, error) {
	r := pack.NewReader(b)
	if v := r.Uint8(); v != formatV1 {
		r.Fail("format %d is unknown", v)
	}
	files := readFiles(r, maxManifest)
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("manifests: %w: %w", ErrMessage, err)
	}
	return files, nil
}

// encodeChain writes the answer to askManifests, with its length. Where there are
// too many, those at the end are left out; they come over the channel.
func encodeChain(files [][]byte) []byte {
	size := 1 + 4
	for i, f := range files {
		if size += minFile + len(f); size > maxChainSize {
			files = files[:i]
			break
		}
	}
	b := appendFiles([]byte{0, 0, 0, 0, formatV1}, files)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}
