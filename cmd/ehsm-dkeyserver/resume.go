package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"reflect"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// errMade is returned for a directory that has a domain already, which is not to be
// lost.
var errMade = errors.New("a domain exists already")

// made reports whether dir has the domain of the draft from an init that was ended
// before it could say so: as a whole, with a DomainKey that opens here, and not
// signed yet. Errors: errMade for any other domain, and what to do.
func made(dir string, p tee.Platform, draft *manifest.Draft) (bool, error) {
	b, err := domainkey.ReadManifest(dir, 1)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the genesis: %w", err)
	}
	m, err := manifest.Parse(b)
	if err != nil {
		return false, fmt.Errorf("%w in %s, with a genesis that does not read: %w", errMade, dir, err)
	}
	switch {
	case len(m.Signatures) > 0: // check: made-signed
		return false, fmt.Errorf("%w in %s: %s, which has been signed; ehsm-dkeyserver serve serves it", errMade, dir, m.Hash())
	case !reflect.DeepEqual(m.Statement.Terms, draft.Terms): // check: made-draft
		return false, fmt.Errorf("%w in %s: %s, not of this draft; name another directory with EHSM_DKEYSERVER_DOMAIN, or move that one away", errMade, dir, m.Hash())
	}
	state, err := manifest.Trust(b) // only to see whether the bundle is whole
	if err != nil {
		return false, err
	}
	if err := usable(dir, p, state); err != nil { // check: made-usable
		return false, fmt.Errorf("%w in %s, but nobody can use it: %w; move the directory away and run init again", errMade, dir, err)
	}
	return true, nil
}

// usable refuses a directory whose DomainKey nobody can have: it has to open here, or,
// where the platform has no seal key, to be in escrow.
func usable(dir string, p tee.Platform, state *manifest.State) error {
	if !tee.Seals(p) {
		b, err := readFile(filepath.Join(dir, escrow.File))
		if err != nil {
			return err
		}
		e, err := escrow.ParseEscrow(b)
		if err != nil {
			return err
		}
		return e.Verify(state)
	}
	home := secret.NewHeap()
	defer home.Close()
	_, err := domainkey.Unseal(dir, p, home, state)
	return err
}

// tellLeftovers names what an init has left that was killed before the domain was
// there.
func tellLeftovers(stderr io.Writer, dir string) {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Clean(dir)), ".domain-*"))
	if err != nil {
		return // a directory whose name is a pattern
	}
	for _, path := range left {
		fmt.Fprintf(stderr, "ehsm-dkeyserver: %s is of an init that was ended before it had made a domain; nobody needs it: rm -r it\n", path)
	}
}
