package escrow

import (
	"crypto/hpke"
	"fmt"
)

// OpenShare decrypts a share with its custodian's key. The caller clears what it
// gets, 32 bytes, and checks it against the commitment of the manifest. Errors: ErrOpen.
func OpenShare(key hpke.PrivateKey, s *Share) ([]byte, error) {
	value, err := Open(key, s.Info(), s.Sealed)
	if err != nil {
		return nil, fmt.Errorf("share of %s: %w", s.Custodian, err)
	}
	return value, nil
}

// Release encrypts an opened share to the session key of a request, and to nobody
// else. Whoever calls it has judged the request: see package restoration.
func Release(s *Share, value []byte, r *Request) (*Answer, error) {
	a := &Answer{Domain: s.Domain, Session: SessionID(r.Session[:]), Index: s.Index, Custodian: s.Custodian}
	var err error
	if a.Sealed, err = Seal(r.Session[:], a.Info(), value); err != nil {
		return nil, fmt.Errorf("session key of the request: %w", err)
	}
	return a, nil
}
