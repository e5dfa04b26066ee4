// Package yamlfile reads the settings file of a program on the host. It is a
// package of its own because a YAML reader has no place in a TEE: programs
// there take their settings from the environment.
package yamlfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/goccy/go-yaml"

	"github.com/ehsm-kms/ehsm/internal/config"
)

const maxFile = 1 << 20 // bytes

// Read reads the file at path: one YAML mapping whose names are all among keys
// and whose values are texts or whole numbers. It returns the values as text;
// an empty file has none. Errors name the file and every setting that is wrong,
// and wrap config.ErrSetting where the content is at fault.
func Read(path string, keys []string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("settings file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%w: over %d bytes", config.ErrSetting, maxFile)
	}
	if err != nil {
		return nil, fmt.Errorf("settings file %s: %w", path, err)
	}
	values, err := parse(b, keys)
	if err != nil {
		return nil, fmt.Errorf("settings file %s: %w", path, err)
	}
	return values, nil
}

func parse(b []byte, keys []string) (map[string]string, error) {
	var found map[string]any
	d := yaml.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&found); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %w", config.ErrSetting, err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: more than one document", config.ErrSetting)
	}
	values := make(map[string]string, len(found))
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(found)) {
		switch v := found[key].(type) {
		case string, uint64, int64:
			values[key] = fmt.Sprint(v)
		default:
			errs = append(errs, fmt.Errorf("%w: %s: want a text or a whole number", config.ErrSetting, key))
		}
		if !slices.Contains(keys, key) {
			errs = append(errs, fmt.Errorf("%w: %s is none; --help lists them", config.ErrSetting, key))
		}
	}
	return values, errors.Join(errs...)
}
