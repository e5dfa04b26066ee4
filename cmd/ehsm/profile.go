package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/ehsm-kms/ehsm/client/ehsm"
)

const (
	defaultProfile = "default"
	devProfile     = "dev"
	maxConfig      = 1 << 20 // bytes of the file of profiles
)

// A configFile is the file of profiles.
type configFile struct {
	Profiles map[string]profile `yaml:"profiles"`
}

// A profile says where a service is, how to know it, and who calls.
type profile struct {
	URL         string           `yaml:"url"`
	Fingerprint string           `yaml:"fingerprint,omitempty"`
	CAFile      string           `yaml:"ca_file,omitempty"`
	Insecure    bool             `yaml:"insecure,omitempty"`
	Pins        `yaml:",inline"` // if complete, requests are sealed
	AppID       string           `yaml:"appid,omitempty"`
	APIKey      storedAKey       `yaml:"apikey,omitempty"`
	Login       *loginSource     `yaml:"login,omitempty"` // in place of APIKey
}

// A storedAKey is an API key that only this file's encoder writes out.
type storedAKey struct{ ehsm.APIKey }

// MarshalYAML implements yaml.InterfaceMarshaler.
func (k storedAKey) MarshalYAML() (any, error) { return k.Expose(), nil }

// UnmarshalYAML implements yaml.InterfaceUnmarshaler.
func (k *storedAKey) UnmarshalYAML(unmarshal func(any) error) error {
	var text string
	if err := unmarshal(&text); err != nil {
		return errors.New("apikey is no text") // the decoder's own error may quote it
	}
	k.APIKey = ehsm.NewAPIKey(text)
	return nil
}

// configPath returns where the profiles are.
func (a *app) configPath() (string, error) {
	dir, err := a.userDir("XDG_CONFIG_HOME", ".config")
	return filepath.Join(dir, "ehsm", "config.yaml"), err
}

// userDir returns the directory that a variable names, or the one below the
// home directory that stands for it.
func (a *app) userDir(variable, below string) (string, error) {
	if dir := a.getenv(variable); filepath.IsAbs(dir) {
		return dir, nil
	}
	home := a.getenv("HOME")
	if home == "" {
		return "", fmt.Errorf("neither %s nor HOME is set", variable)
	}
	return filepath.Join(home, below), nil
}

// loadConfig reads the file of profiles; a missing one has none.
func loadConfig(path string) (c configFile, err error) {
	b, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read profiles: %w", err)
	}
	return c, decodeYAML(path, b, &c)
}

// decodeYAML refuses unknown members. Its error names the place, and shows
// nothing of the text, which holds secrets.
func decodeYAML(path string, b []byte, into any) error {
	err := yaml.UnmarshalWithOptions(b, into, yaml.Strict())
	if err != nil && !errors.Is(err, io.EOF) { // an empty file
		text, _, _ := strings.Cut(yaml.FormatError(err, false, false), "\n")
		return fmt.Errorf("read %s: %s", path, text)
	}
	return nil
}

// readPrivate reads a small file that nobody but its owner may read or write.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.Mode().Perm()&0o077 != 0:
		return nil, withHint(fmt.Errorf("%s has mode %#o and others can read the API key in it", path, info.Mode().Perm()), "chmod 600 "+path)
	case info.Size() > maxConfig:
		return nil, fmt.Errorf("%s has %d bytes, limit %d", path, info.Size(), maxConfig)
	}
	return io.ReadAll(io.LimitReader(f, maxConfig))
}

// saveProfile puts one profile into the file of profiles.
func saveProfile(path, name string, p profile) error {
	c, err := loadConfig(path)
	if err != nil {
		return err
	}
	if c.Profiles == nil {
		c.Profiles = map[string]profile{}
	}
	c.Profiles[name] = p
	return writePrivate(path, c)
}

// writePrivate writes v as YAML, for the owner only and all or nothing.
func writePrivate(path string, v any) error {
	b, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := createFile(path)
	if err != nil {
		return err
	}
	defer f.abort()
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.commit()
}

// choose returns the profile to use if none was named. Further credentials of the
// tenant of dev do not make dev one of several.
func (c configFile) choose() string {
	dev, ok := c.Profiles[devProfile]
	if !ok {
		return defaultProfile
	}
	for name, p := range c.Profiles {
		if name == devProfile || ofDevNode(name) {
			continue
		}
		if name == defaultProfile || p.AppID == "" || p.AppID != dev.AppID {
			return defaultProfile
		}
	}
	return devProfile
}

// ofDevNode reports whether a profile is that of a single node, beside the profile of
// all of them.
func ofDevNode(name string) bool {
	node, ok := strings.CutPrefix(name, devProfile+"-")
	return ok && len(node) == 1 && node[0] >= '1' && node[0] <= '9'
}

func (c configFile) names() []string { return slices.Sorted(maps.Keys(c.Profiles)) }
