package main

import (
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// secretSize is the size of a private key of every duty, in bytes.
const secretSize = 32

// A keyFile is the private key of a person. Layout:
// docs/formats.md#public-key-line-v1.
type keyFile struct {
	duty   manifest.Duty
	person manifest.Person
	secret []byte
}

// newKeyFile makes a key.
func newKeyFile(d manifest.Duty, name string) (*keyFile, error) {
	if d == manifest.Custodian {
		key, err := hpke.MLKEM768X25519().GenerateKey()
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		b, err := key.Bytes()
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		return parseSecret(d, name, b)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return parseSecret(d, name, key.Seed())
}

// parseSecret adds the public half to a private key.
func parseSecret(d manifest.Duty, name string, secret []byte) (*keyFile, error) {
	if len(secret) != secretSize {
		return nil, fmt.Errorf("key has %d bytes, want %d", len(secret), secretSize)
	}
	k := &keyFile{d, manifest.Person{Name: name}, secret}
	if d == manifest.Custodian {
		key, err := hpke.MLKEM768X25519().NewPrivateKey(secret)
		if err != nil {
			return nil, err
		}
		k.person.Key = key.PublicKey().Bytes()
	} else {
		k.person.Key = k.signer().Public().(ed25519.PublicKey)
	}
	_, _, err := manifest.ParsePublic([]byte(k.public())) // checks the name
	return k, err
}

// signer is the key of an operator or administrator.
func (k *keyFile) signer() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(k.secret) }

// public is the line to pass on.
func (k *keyFile) public() string { return k.person.PublicText(k.duty) }

func (k *keyFile) text() string {
	return fmt.Sprintf("ehsm-%s-secret-v1 %s %s\n", k.duty, k.person.Name, base64.StdEncoding.EncodeToString(k.secret))
}

// errKeyFile is wrapped by errors about the content of key files, which never say
// what it is.
var errKeyFile = errors.New("not a key file of ehsm domain keygen")

func parseKeyFile(text []byte) (*keyFile, error) {
	words := strings.Split(string(text), " ")
	if len(words) != 3 {
		return nil, errKeyFile
	}
	secret, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(words[2], "\n"))
	if err != nil {
		return nil, errKeyFile
	}
	for _, d := range manifest.Duties() {
		if words[0] != "ehsm-"+string(d)+"-secret-v1" {
			continue
		}
		k, err := parseSecret(d, words[1], secret)
		if err != nil || k.text() != string(text) {
			return nil, errKeyFile
		}
		return k, nil
	}
	return nil, errKeyFile
}

// readKeyFile reads a private key that only its owner can read.
func readKeyFile(path string) (*keyFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if others := info.Mode().Perm() & 0o077; others != 0 {
		return nil, withHint(fmt.Errorf("key file %s can be read or written by others", path), "who could read it may have it: make a new key, or chmod 600 "+path)
	}
	b, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	k, err := parseKeyFile(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return k, nil
}

// writeNew writes a file that does not exist yet.
func writeNew(path, text string, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	return f.Sync()
}

// readPublic reads the public keys of people with a duty, a line each file.
func readPublic(d manifest.Duty, paths []string) ([]manifest.Person, error) {
	var all []manifest.Person
	for _, path := range paths {
		p, duty, err := readPerson(path)
		if err != nil {
			return nil, err
		}
		if duty != d {
			return nil, fmt.Errorf("%s is a key for the duty of %s, want one of %s", path, duty, d)
		}
		all = append(all, p)
	}
	return all, nil
}

// readPerson reads a public key of any duty. One that a custodian's share cannot be
// encrypted to is refused: it would be noticed when it is too late.
func readPerson(path string) (manifest.Person, manifest.Duty, error) {
	b, err := readSmall(path)
	if err != nil {
		return manifest.Person{}, "", err
	}
	p, duty, err := manifest.ParsePublic(b)
	if err == nil && duty == manifest.Custodian {
		_, err = hpke.MLKEM768X25519().NewPublicKey(p.Key)
	}
	switch {
	case err != nil && strings.Contains(string(b), "-secret-v1 "):
		return p, duty, withHint(fmt.Errorf("%s is a private key", path), "its owner keeps it; name the file "+path+".pub")
	case err != nil:
		return p, duty, fmt.Errorf("read %s: %w", path, err)
	}
	return p, duty, nil
}
