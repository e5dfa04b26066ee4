package facts

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// fakeKeys are the keys of versions from least to current.
type fakeKeys struct{ least, current uint32 }

func (k *fakeKeys) Key(p domainkey.Purpose, version uint32) (secret.Bytes, error) {
	if p != domainkey.NegativeFacts || version < k.least || version > k.current {
		return secret.Bytes{}, fmt.Errorf("%w: version %d", domainkey.ErrNoVersion, version)
	}
	return secret.New(bytes.Repeat([]byte{byte(version)}, 32)), nil
}

func (k *fakeKeys) Current() uint32 { return k.current }
func (k *fakeKeys) Hold()           {}
func (k *fakeKeys) Release()        {}

// fact is that record n is at least at a revision.
func fact(n, revision uint64) Fact {
	f := Fact{ID: wire.RecordID{Type: wire.Key, Tenant: wire.UUID{1}}, Revision: revision, Tag: tag(n, revision)}
	binary.BigEndian.PutUint64(f.ID.ID[:], n)
	return f
}

func tag(n, revision uint64) (t wire.Tag) {
	binary.BigEndian.PutUint32(t[:], uint32(n))
	binary.BigEndian.PutUint32(t[4:], uint32(revision))
	return t
}

// shown returns a log that was shown all entries of others.
func shown(t testing.TB, entries []byte) *Log {
	t.Helper()
	l := NewLog(&fakeKeys{1, 1}, 1000)
	if _, err := l.Extend(1, entries, true); err != nil {
		t.Fatal(err)
	}
	return l
}

// grow returns entries with those of one more fact.
func grow(t testing.TB, entries []byte, f ...Fact) []byte {
	t.Helper()
	first, more, err := draft(shown(t, entries).Draft(f))
	if err != nil || first != uint64(len(entries)/wire.FactSize+1) {
		t.Fatalf("Draft: got %d, %v", first, err)
	}
	return append(bytes.Clone(entries), more...)
}

func head(t testing.TB, entries []byte) Head {
	t.Helper()
	return shown(t, entries).Head()
}

// draft takes what Log.Draft returns apart.
func draft(f *Draft, err error) (first uint64, entries []byte, _ error) {
	if err != nil {
		return 0, nil, err
	}
	return f.First, f.Entries, nil
}
