package recovery

import (
	"bytes"
	"context"
	"crypto/hpke"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/restoration"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Options are what the host brings for a restoration. It decides nothing by them: the
// custodians release for one backup, one domain and one chain of manifests.
type Options struct {
	Attester   tee.Attester
	Platform   tee.Platform // seals what is restored, unless InMemory
	Backup     []byte
	Manifests  [][]byte   // that follow those of the backup; the last may be what admits this machine
	Collateral []byte     // collateral-v1 of this machine's platform
	Domain     genesis.ID // that the backup must be of; zero: any
	Now        time.Time
	// InMemory says that what is restored is kept nowhere: the platform has no seal
	// keys, and custodians come again after each start.
	InMemory bool
}

// A Session is one restoration: shares are collected until there are enough. It is
// not safe for concurrent use.
type Session struct {
	platform tee.Platform
	backup   *escrow.Backup
	files    [][]byte // manifests
	escrow   *escrow.Escrow
	key      hpke.PrivateKey
	request  *escrow.Request
	verdict  *restoration.Verdict
	shares   map[uint8]secret.Bytes
}

// Begin verifies a backup, makes the session key, and has the platform attest it. It
// judges its own evidence as custodians will, so that a machine that the manifest does
// not admit is told so at once. Errors: ErrMachine, restoration.ErrDomain, domainkey.ErrSimulated,
// tee.ErrNoSealKey, those of escrow.ParseBackup and Backup.Verify, and of restoration.Judge.
func Begin(ctx context.Context, o Options) (*Session, error) {
	s := &Session{platform: o.Platform, shares: map[uint8]secret.Bytes{}}
	contents, err := s.read(o)
	if err != nil {
		return nil, err
	}
	if o.Domain != (genesis.ID{}) && contents.State().Domain != o.Domain { // check: restore-domain
		return nil, fmt.Errorf("%w: the backup is of %s, wanted is %s", restoration.ErrDomain, contents.State().Domain, o.Domain)
	}
	if err := escrow.Restorable(contents.States); err != nil {
		return nil, err
	}
	if err := domainkey.Protected(o.Platform, &contents.State().Terms); err != nil { // check: restore-protected
		return nil, err
	}
	if err := canSeal(o.Platform); err != nil && !o.InMemory {
		return nil, err
	}
	s.escrow = contents.Escrow
	s.request = &escrow.Request{Backup: sha256.Sum256(o.Backup), Manifests: s.files, Collateral: o.Collateral}
	if s.key, err = hpke.MLKEM768X25519().GenerateKey(); err != nil {
		return nil, fmt.Errorf("make the key of the session: %w", err)
	}
	copy(s.request.Session[:], s.key.PublicKey().Bytes())
	evidence, err := o.Attester.Evidence(ctx, restoration.ReportData(s.request, contents.State()))
	if err != nil {
		return nil, fmt.Errorf("make evidence: %w", err)
	}
	s.request.Evidence = evidence.Append(nil)
	s.verdict, err = restoration.Judge(s.request, restoration.Options{Domain: contents.State().Domain, Now: o.Now, Guests: judgeGuests()})
	if err != nil {
		return nil, fmt.Errorf("this machine may not restore the domain: %w", err)
	}
	return s, nil
}

// read verifies the backup under the manifest in force, which may be one after those in it.
func (s *Session) read(o Options) (*escrow.Contents, error) {
	var err error
	if s.backup, err = escrow.ParseBackup(o.Backup); err != nil {
		return nil, err
	}
	all := *s.backup
	all.Manifests = slices.Clone(s.backup.Manifests)
	for _, f := range o.Manifests {
		if !all.Has(f) {
			all.Manifests = append(all.Manifests, f)
		}
	}
	s.files = all.Manifests
	contents, err := all.Verify(o.Now)
	if err != nil {
		return nil, fmt.Errorf("verify the backup: %w", err)
	}
	return contents, nil
}

// canSeal finds out before custodians are asked whether the platform could keep what
// is restored.
func canSeal(p tee.Platform) error {
	_, key, err := tee.NewSealKey(p, tee.BindSigner)
	if err != nil {
		return fmt.Errorf("the DomainKey could not be kept here: %w", err)
	}
	key.Zero()
	return nil
}

// Request returns the file for the custodians.
func (s *Session) Request() []byte { return s.request.Encode() }

// Verdict returns what custodians will find.
func (s *Session) Verdict() *restoration.Verdict { return s.verdict }

// Escrow returns what is restored.
func (s *Session) Escrow() *escrow.Escrow { return s.escrow }

// Progress returns the names of the custodians whose shares are there, and how many
// shares it takes.
func (s *Session) Progress() (have []string, need int) {
	q := s.verdict.State().Custodians
	for i, p := range q.Members {
		if _, ok := s.shares[uint8(i+1)]; ok {
			have = append(have, p.Name)
		}
	}
	return have, q.Threshold
}

// Add takes a custodian's answer. What is refused changes nothing. Errors:
// escrow.ErrFile, ErrSession, escrow.ErrDomain, ErrTwice, ErrShare.
func (s *Session) Add(file []byte) error {
	a, err := escrow.ParseAnswer(file)
	if err != nil {
		return err
	}
	state := s.verdict.State()
	switch {
	case a.Domain != state.Domain: // check: answer-domain
		return fmt.Errorf("answer of %s %w: it is %s, this is %s", a.Custodian, escrow.ErrDomain, a.Domain, state.Domain)
	case a.Session != escrow.SessionID(s.request.Session[:]): // check: answer-session
		return fmt.Errorf("%w: that of %s", ErrSession, a.Custodian)
	case int(a.Index) > len(state.Custodians.Members) || state.Custodians.Members[a.Index-1].Name != a.Custodian:
		return fmt.Errorf("%w: the manifest has no custodian %s with the share %d", ErrShare, a.Custodian, a.Index)
	}
	if _, ok := s.shares[a.Index]; ok { // check: answer-twice
		return fmt.Errorf("%w: that of %s", ErrTwice, a.Custodian)
	}
	secret.Do(func() { err = s.take(a, state.Recovery) })
	if err != nil {
		return fmt.Errorf("answer of %s: %w", a.Custodian, err)
	}
	return nil
}

// take opens an answer and checks the share.
func (s *Session) take(a *escrow.Answer, r *manifest.Recovery) error {
	plain, err := escrow.Open(s.key, a.Info(), a.Sealed)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrShare, err)
	}
	value := secret.New(plain)
	if err := check(a.Index, value, r); err != nil { // check: answer-share
		value.Zero()
		return err
	}
	s.shares[a.Index] = value
	return nil
}

// Keys combines the shares and opens the escrow, with the keys in home. The session
// is over: shares and session key are forgotten. Errors: ErrTooFew, after which more can be added; escrow.ErrOpen and
// domainkey.ErrSeal for an escrow that a TEE of the domain signed but did not make well.
func (s *Session) Keys(home *secret.Home) (keys *domainkey.Keyring, err error) {
	secret.Do(func() { keys, err = s.open(home) })
	return keys, err
}

func (s *Session) open(home *secret.Home) (*domainkey.Keyring, error) {
	state := s.verdict.State()
	key, err := combine(state.Custodians.Threshold, s.shares)
	if err != nil {
		return nil, err
	}
	defer s.forget()
	if !bytes.Equal(key.PublicKey().Bytes(), state.Recovery.PublicKey) { // check+: recovery-key: each share was checked
		return nil, fmt.Errorf("%w: together they do not give the recovery key of the manifest", ErrShare)
	}
	plain, err := escrow.Open(key, s.escrow.Info(), s.escrow.Sealed)
	if err != nil {
		return nil, fmt.Errorf("open the escrow: %w", err)
	}
	keys, err := domainkey.Import(home, state, secret.New(plain))
	if err != nil {
		return nil, fmt.Errorf("open the escrow: %w", err)
	}
	if !slices.Equal(versions(keys), s.escrow.Versions) { // check: escrow-versions
		return nil, fmt.Errorf("%w: the escrow has other versions of the DomainKey than it says", domainkey.ErrSeal)
	}
	return keys, nil
}

func (s *Session) forget() {
	for _, v := range s.shares {
		v.Zero()
	}
	s.shares, s.key = map[uint8]secret.Bytes{}, nil
}

// Write makes the domain directory dir, which must not exist, with the keys sealed
// for this machine, all manifests, and a new escrow. It is there as a whole or not at all. Errors: those of domainkey.Restore.
func (s *Session) Write(dir string, keys *domainkey.Keyring, now time.Time) error {
	state := s.verdict.State()
	e, err := Seal(keys, state, now)
	if err != nil {
		return err
	}
	files, err := s.public(e)
	if err != nil {
		return err
	}
	return keys.Restore(dir, s.platform, state, files)
}

// Publish makes the domain directory dir, which must not exist, of the backup and of the
// manifests alone, for a platform without seal keys: whoever serves it asks the custodians.
// Errors: those of domainkey.Publish.
func (s *Session) Publish(dir string) error {
	files, err := s.public(s.backup.Escrow)
	if err != nil {
		return err
	}
	return domainkey.Publish(dir, s.platform, s.verdict.State(), files)
}

// public are the files of a domain directory that anybody may have, with an escrow.
func (s *Session) public(e []byte) (map[string][]byte, error) {
	state := s.verdict.State()
	files := map[string][]byte{escrow.File: e}
	for i, m := range s.verdict.States {
		files[domainkey.ManifestFile(m.Version)] = s.files[i]
	}
	made := state.Version // of the manifest that brought the recovery key
	for _, m := range slices.Backward(s.verdict.States) {
		if m.Recovery != nil && bytes.Equal(m.Recovery.PublicKey, state.Recovery.PublicKey) {
			made = m.Version
		}
	}
	for _, f := range s.backup.Shares {
		share, err := escrow.ParseShare(f)
		if err != nil {
			return nil, err
		}
		files[escrow.ShareFile(share.Custodian, made)] = f
	}
	return files, nil
}
