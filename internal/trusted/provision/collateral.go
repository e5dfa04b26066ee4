package provision

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
)

// CollateralFile returns what reads the collateral of the own platform from a file,
// for a channel.Config. The file has either form of one platform's collateral that
// package verify reads, binary or JSON, and is read each time, so that newer
// collateral counts at once; it is replaced by renaming. Nothing is verified, as
// the peer does it.
func CollateralFile(path string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		b, err := readLimited(path, channel.MaxCollateral)
		if err != nil {
			return nil, fmt.Errorf("read collateral: %w", err)
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
