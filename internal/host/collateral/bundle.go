package collateral

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// ErrBundle is wrapped by the errors for files that are no bundle.
var ErrBundle = errors.New("not a collateral bundle")

// Limits of a bundle.
const (
	MaxPlatforms  = 256      // kinds of platforms; Intel knows fewer
	MaxBundleFile = 32 << 20 // bytes
)

// bundleLabel starts a bundle file, so that a person sees what it is.
const bundleLabel = "ehsm/collateral-bundle/v1\n"

// EncodeBundle writes the collateral of several kinds of platforms as one file.
// Layout: docs/formats.md#collateral-bundle-v1. Errors wrap ErrBundle: collateral
// that does not parse, two of one kind, too much of it.
func EncodeBundle(all []verify.Collateral) ([]byte, error) {
	if len(all) > MaxPlatforms {
		return nil, fmt.Errorf("%w: %d platforms, limit %d", ErrBundle, len(all), MaxPlatforms)
	}
	byName := map[string]*verify.Collateral{}
	var names []string
	for i := range all {
		contents, err := all[i].Contents()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBundle, err)
		}
		name := Format(contents.Query)
		if byName[name] != nil {
			return nil, fmt.Errorf("%w: it has %s twice", ErrBundle, name)
		}
		byName[name] = &all[i]
		names = append(names, name)
	}
	slices.Sort(names)
	out := binary.BigEndian.AppendUint32([]byte(bundleLabel), uint32(len(names)))
	for _, name := range names {
		out = pack.AppendBytes(out, byName[name].Append(nil))
	}
	sum := sha256.Sum256(out)
	if out = append(out, sum[:]...); len(out) > MaxBundleFile {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrBundle, len(out), MaxBundleFile)
	}
	return out, nil
}

// DecodeBundle reads what EncodeBundle wrote, and nothing else. The collateral
// shares memory with b. Errors wrap ErrBundle.
func DecodeBundle(b []byte) ([]verify.Collateral, error) {
	body, err := cutSum(b)
	if err != nil {
		return nil, err
	}
	r := pack.NewReader(body)
	if label := r.Fixed(len(bundleLabel)); r.Err() == nil && string(label) != bundleLabel {
		r.Fail("label is %q", label)
	}
	var all []verify.Collateral
	last := ""
	for range r.Count(MaxPlatforms, 4) {
		c, err := verify.DecodeCollateral(r.Bytes(verify.MaxBundle))
		if r.Err() != nil {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: collateral %d: %w", ErrBundle, len(all), err)
		}
		contents, err := c.Contents()
		if err != nil {
			return nil, fmt.Errorf("%w: collateral %d: %w", ErrBundle, len(all), err)
		}
		name := Format(contents.Query)
		if name <= last {
			return nil, fmt.Errorf("%w: %s follows %s", ErrBundle, name, last)
		}
		all, last = append(all, c), name
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	return all, nil
}

// cutSum checks the hash at the end. It tells damage from age; it proves nothing.
func cutSum(b []byte) ([]byte, error) {
	at := len(b) - sha256.Size
	if len(b) > MaxBundleFile || at < len(bundleLabel) || !strings.HasPrefix(string(b), bundleLabel) {
		return nil, fmt.Errorf("%w: it does not start with %q, or has a wrong length", ErrBundle, bundleLabel)
	}
	if sum := sha256.Sum256(b[:at]); !bytes.Equal(sum[:], b[at:]) {
		return nil, fmt.Errorf("%w: it is damaged", ErrBundle)
	}
	return b[:at], nil
}

// Decode reads a file with collateral in any of its forms: a bundle, the
// collateral of one kind of platform in its binary encoding, or in JSON. All of
// it has been parsed. Errors wrap ErrBundle.
func Decode(b []byte) ([]verify.Collateral, error) {
	if strings.HasPrefix(string(b[:min(len(b), len(bundleLabel))]), bundleLabel) {
		return DecodeBundle(b)
	}
	decode := verify.DecodeCollateral
	if bytes.HasPrefix(bytes.TrimLeft(b[:min(len(b), 1024)], " \t\r\n"), []byte("{")) {
		decode = verify.DecodeCollateralJSON
	}
	c, err := decode(b)
	if err == nil {
		_, err = c.Contents()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	return []verify.Collateral{c}, nil
}

// A Bundle is a file as a Source, for services without a way to Intel. The file
// is read at each fetch, so that a newer one is noticed; replace it by renaming.
type Bundle struct{ path string }

// OpenBundle returns the source of a file that Decode reads. Errors wrap
// ErrSettings.
func OpenBundle(path string) (*Bundle, error) {
	b := &Bundle{path}
	if _, err := b.read(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSettings, err)
	}
	return b, nil
}

func (b *Bundle) read() ([]verify.Collateral, error) {
	raw, err := readLimited(b.path, MaxBundleFile)
	if err != nil {
		return nil, fmt.Errorf("read the collateral bundle: %w", err)
	}
	all, err := Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", b.path, err)
	}
	return all, nil
}

// Fetch implements Source.
func (b *Bundle) Fetch(_ context.Context, q Query) (verify.Collateral, error) {
	all, err := b.read()
	if err != nil {
		return verify.Collateral{}, err
	}
	for _, c := range all {
		if _, err := contentsFor(&c, q); err == nil {
			return c, nil
		}
	}
	return verify.Collateral{}, fmt.Errorf("%w: %s is not in %s", ErrUnknownPlatform, Format(q), b.path)
}
