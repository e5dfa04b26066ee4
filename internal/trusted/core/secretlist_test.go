package core

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// TestMoreVersionsThanAreListed lists the newest 4000.
func TestMoreVersionsThanAreListed(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "v1"))
	a := &secretAttacker{host: h, t: t, domain: d}
	s := a.secret(c, "n")
	const more = 3
	for n := uint32(2); n <= wire.MaxSecrets+more; n++ {
		id := wire.RecordID{Type: wire.SecretVersion, Tenant: c.id(), ID: s.Incarnation, Version: n}
		sealed, err := record.SealSecretVersion(d.keys, record.Header{ID: id, Revision: 1}, record.SecretVersion{Created: int64(n), Key: s.Key, KeyVersion: 1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		h.rows[id] = wire.Write{ID: id, Revision: 1, Sealed: sealed}
	}
	s.Current = wire.MaxSecrets + more
	a.putSecret(c.secretRecord("n"), 2, s)
	h.cores[0] = d.start(t, h, Limits{})
	r := c.mustDo("ListSecretVersionIds", secretOf("n"))
	ids := r.Result["versionIds"].([]any)
	if len(ids) != wire.MaxSecrets || r.Result["totalCount"] != float64(wire.MaxSecrets) {
		t.Fatalf("got %d versions and a count of %v, want %d", len(ids), r.Result["totalCount"], wire.MaxSecrets)
	}
	for i, item := range ids {
		n := i + 1 + more
		if want := (m{"versionId": float64(n), "createTime": float64(n)}); fmt.Sprint(item) != fmt.Sprint(want) {
			t.Fatalf("entry %d: got %v, want %v", i, item, want)
		}
	}
}

// TestVersionsOvertaken answers the query for versions with one that was put
// after the secret's record was read.
func TestVersionsOvertaken(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "v1"))
	record := h.secretRef(c, "n")
	c.mustDo("PutSecretValue", secretOf("n", "secretData", "v2"))
	h.cores[0] = d.start(t, h, Limits{})
	h.edit = func(f *wire.Ref) {
		if f.ID == record.ID {
			*f = record
		}
	}
	if n := len(c.mustDo("ListSecretVersionIds", secretOf("n")).Result["versionIds"].([]any)); n != 1 {
		t.Errorf("got %d versions, want the one of the record", n)
	}
}

// TestLongListing ends where a reply would be too long.
func TestLongListing(t *testing.T) {
	if raceEnabled {
		return // 16 MB of escaped text, in one goroutine
	}
	h, d := newHost(t)
	c := h.enroll()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "v1"))
	a := &secretAttacker{host: h, t: t, domain: d}
	s := a.secret(c, "n")
	s.Description = strings.Repeat("\x01", 4096) // 24 KiB in JSON
	const most = maxListReply / (6 * 4096)
	for i := range most + 20 {
		s.Created, s.Name = s.Created+1, fmt.Sprint(i)
		a.putSecret(c.secretRecord(s.Name), 1, s)
	}
	r := c.mustDo("ListSecrets", nil)
	n := len(r.Result["secretList"].([]any))
	if n < most-20 || n > most || r.Result["totalCount"] != float64(n) || len(r.answer.Reply) > maxListReply+1024 {
		t.Errorf("got %d secrets in %d bytes, a count of %v, want about %d", n, len(r.answer.Reply), r.Result["totalCount"], most)
	}
	if got := r.Result["secretList"].([]any)[1].(map[string]any)["secretName"]; got != "0" {
		t.Errorf("the second entry is %v, want the oldest first", got)
	}
}
