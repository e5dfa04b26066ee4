package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// minOverlap is how long the old API key goes on at least: a new one that gets lost
// on its way must not be the only one.
const minOverlap = time.Minute

func newCredentialRotate(a *app) *cobra.Command {
	var overlap time.Duration
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the API key of a profile by a new one",
		Long: `rotate has the service make a successor of the profile's API key, with the same
rights, and writes it into the profile, and into all others that have the same key.
The key of before goes on for --overlap; have all who use it change over meanwhile.
If anything fails, the profile is as it was and its key works: run rotate again.

It is no answer to a key that somebody else has seen: revoke that one.`,
		Example: `  ehsm credential rotate
  ehsm --profile batch credential rotate --overlap 24h`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.rotateCredential(cmd.Context(), overlap) },
	}
	cmd.Flags().DurationVar(&overlap, "overlap", time.Hour, "`time` for which the old API key goes on, 1m to 720h")
	return cmd
}

func (a *app) rotateCredential(ctx context.Context, overlap time.Duration) error {
	if overlap < minOverlap || overlap > api.MaxOverlap*time.Second || overlap%time.Second != 0 {
		return withHint(usagef("overlap is %v, want whole seconds from 1m to 720h", overlap),
			"to end the old API key at once, rotate and then ehsm credential revoke ID")
	}
	path, old, err := a.rotatable()
	if err != nil {
		return err
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	cred, id, err := client.RotateAPIKey(ctx, overlap)
	if err != nil {
		return rotateHint(err)
	}
	names, err := replaceAPIKey(path, old, cred.APIKey)
	if err != nil {
		return withHint(fmt.Errorf("keep the new API key, of credential %s: %w", id, err),
			fmt.Sprintf("the profile has its old API key, which ends in %v at the latest: mend this, then ehsm credential rotate", overlap))
	}
	a.warn("wrote a new API key to %s: %s", path, strings.Join(names, ", "))
	a.warn("the old API key ends in %v at the latest", overlap)
	return a.emit(struct {
		CredentialID string   `json:"credentialId"`
		AppID        string   `json:"appid"`
		Profiles     []string `json:"profiles"`
		Overlap      string   `json:"overlap"` // at most
	}{id, cred.AppID, names, overlap.String()}, id+"\n")
}

// rotateHint adds what to do about an API key that did not rotate.
func rotateHint(err error) error {
	switch {
	case errors.Is(err, ehsm.ErrOutcomeUnknown), errors.Is(err, ehsm.ErrReplySignature):
		return withHint(err, "the profile is as it was; run ehsm credential rotate again, the overlap gets no longer")
	case ehsm.IsBadCredentials(err):
		return err // hintFor knows
	}
	return asOwner(err)
}

// rotatable returns the profile whose API key the settings use, and its file, which
// can be written.
func (a *app) rotatable() (path string, p profile, err error) {
	if a.getenv("EHSM_APPID") != "" {
		return "", p, withHint(usagef("credentials are those of EHSM_APPID and EHSM_APIKEY, want a profile to write the new API key to"),
			"unset both, or: ehsm api RotateAPIKey '{\"overlapSeconds\":3600}' prints the new API key")
	}
	if path, err = a.configPath(); err != nil {
		return "", p, err
	}
	if p, err = a.selected(); err != nil {
		return "", p, err
	}
	if p.AppID == "" || p.APIKey.IsZero() {
		return "", p, ehsm.ErrNoCredentials
	}
	return path, p, probe(path)
}

// probe returns an error if the file of profiles cannot be written now, so that
// nothing is made that cannot be kept.
func probe(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := createFile(path)
	if err != nil {
		return fmt.Errorf("write profiles: %w", err)
	}
	f.abort()
	return nil
}

// replaceAPIKey puts key in the place of old's in every profile that has it, all or
// nothing, and returns their names.
func replaceAPIKey(path string, old profile, key ehsm.APIKey) ([]string, error) {
	c, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for name, p := range c.Profiles {
		if p.AppID == old.AppID && p.APIKey.Expose() == old.APIKey.Expose() {
			p.APIKey = storedAKey{key}
			c.Profiles[name] = p
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no profile in %s has the old API key of %s any more", path, cmp.Or(old.AppID, "nobody"))
	}
	slices.Sort(names)
	return names, writePrivate(path, c)
}
