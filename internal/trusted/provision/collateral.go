package provision

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
)

// CollateralFile returns what reads the collateral of the own platform from a file,
// for a channel.Config. The file has either form of one platform's collateral that
// package verify reads, binary or JSON, or that of a chip of AMD, in PEM. It is read
// each time, so that newer collateral counts at once; it is replaced by renaming.
// Nothing is verified, as the peer does it.
func CollateralFile(path string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		b, err := readLimited(path, channel.MaxCollateral)
		if err != nil {
			return nil, fmt.Errorf("read collateral: %w", err)
		}
		if bytes.HasPrefix(bytes.TrimSpace(b), []byte("-----BEGIN ")) {
			if b, err = normal(b); err != nil {
				return nil, fmt.Errorf("read collateral in %s: %w", path, err)
			}
			return b, nil
		}
		c, err := verify.DecodeCollateral(b)
		if err != nil {
			var again error
			if c, again = verify.DecodeCollateralJSON(b); again != nil {
				return nil, fmt.Errorf("read collateral in %s: %w", path, err)
			}
		}
		return c.Append(nil), nil
	}
}

// normal returns PEM in the encoding in which it is sent.
// Layout: docs/formats.md#snp-collateral-v1.
func normal(b []byte) (out []byte, err error) {
	for b = bytes.TrimSpace(b); len(b) > 0; b = bytes.TrimSpace(b) {
		block, rest := pem.Decode(b)
		if block == nil || !bytes.HasPrefix(b, []byte("-----BEGIN ")) {
			return nil, errors.New("it is no PEM")
		}
		out, b = append(out, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...), rest
	}
	return out, nil
}

// readLimited reads a file of at most limit bytes.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return b, err
}
