package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// rollback is a host that is root on all machines of a site and has its database.
type rollback struct {
	*site
	db *pgx.Conn
}

func (s *site) rollback(t *testing.T) *rollback {
	t.Helper()
	db, err := pgx.Connect(t.Context(), s.database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	return &rollback{s, db}
}

func (r *rollback) exec(t *testing.T, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := r.db.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// takeBack has the database say again what a table of before says.
func (r *rollback) takeBack(t *testing.T, table string) {
	t.Helper()
	r.exec(t, "BEGIN", "DELETE FROM records", "INSERT INTO records SELECT * FROM "+table, "COMMIT")
}

// restart ends the core of a machine and starts another. Nobody waits until it serves.
func (n *node) restart(t *testing.T) {
	t.Helper()
	n.g.kill(partCore)
	n.startCore(t)
}

// eventually waits for a condition that outside programs bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), readyTimeout)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// anchored waits until the dkeyserver of a machine has a head of so many entries.
func (n *node) anchored(t *testing.T, entries uint64) {
	t.Helper()
	eventually(t, "the head at a dkeyserver", func() bool {
		var f struct{ Entries uint64 }
		b, err := os.ReadFile(filepath.Join(n.path("domain"), "facts.json"))
		return err == nil && json.Unmarshal(b, &f) == nil && f.Entries >= entries
	})
}

// withheld waits until a machine says that it serves nothing because of the log.
func (n *node) withheld(t *testing.T) {
	t.Helper()
	eventually(t, "/readyz to tell of the log", func() bool {
		resp, err := n.g.http.Get(n.g.base() + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode == http.StatusServiceUnavailable && strings.Contains(string(body), `"facts":"failing"`) && strings.Contains(string(body), `"core":"ok"`)
	})
}

func (n *node) ready(t *testing.T) {
	t.Helper()
	if err := n.g.awaitReady(); err != nil {
		t.Fatal(err)
	}
}

// refuses expects that nobody can use a key any more.
func refuses(t *testing.T, c *tenant, what, key string) {
	t.Helper()
	if r := c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}); r.Code == 200 {
		t.Errorf("%s: is used again", what)
	}
}

// TestFacts has a host put old rows back, restart every core, and do to the log of
// negative facts what it can.
func TestFacts(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, nil)
	s.up(t)
	one, two := s.machines[0], s.machines[1]
	first, other := one.g.enroll(t), one.g.enroll(t)
	kept, disabled, deleted, all := first.createAES(t), first.createAES(t), first.createAES(t), other.createAES(t)
	first.createSecret(t, "secret", "value", nil)
	r := s.rollback(t)
	r.exec(t, "CREATE TABLE before AS TABLE records")
	want(t, first.call(t, "DisableKey", fields{"keyid": disabled}), 200, textSuccessful)
	want(t, first.on(two.g).call(t, "DeleteKey", fields{"keyid": deleted}), 200, textSuccessful)
	want(t, other.call(t, "DeleteAllKey", nil), 200, textSuccessful)
	if reply := first.call(t, "DeleteSecret", fields{"secretName": "secret"}); reply.Code != 200 {
		t.Fatalf("DeleteSecret: %s", reply.body)
	}
	one.anchored(t, 4)
	two.anchored(t, 4)
	r.exec(t, "CREATE TABLE after AS TABLE records", "CREATE TABLE log AS TABLE facts")

	r.takeBack(t, "before")
	for _, n := range s.machines {
		n.restart(t)
	}
	for _, n := range s.machines {
		n.ready(t)
		c := first.on(n.g)
		opens(t, c, kept, sealedBy(t, c, kept))
		refuses(t, c, "a disabled key", disabled)
		refuses(t, c, "a deleted key", deleted)
		refuses(t, other.on(n.g), "a key deleted with all others", all)
		if reply := c.call(t, "GetSecretValue", fields{"secretName": "secret"}); reply.Code == 200 {
			t.Error("a deleted secret is read again")
		}
		if reply := c.call(t, "EnableKey", fields{"keyid": deleted}); reply.Code == 200 {
			t.Error("a deleted key is enabled")
		}
	}
	r.takeBack(t, "after")
	for _, tt := range []struct{ name, sql string }{
		{"withheld", "DELETE FROM facts"},
		{"truncated", "DELETE FROM facts WHERE seq = 4"},
		{"an entry altered", "UPDATE facts SET entry = set_byte(entry, 30, get_byte(entry, 30) # 1) WHERE seq = 2"},
		{"entries reordered", "UPDATE facts SET entry = (SELECT entry FROM log WHERE log.seq = 3 - facts.seq) WHERE seq <= 2"},
	} {
		r.exec(t, tt.sql)
		one.restart(t)
		one.withheld(t)
		refuses(t, first, tt.name+": a key that is as it was", kept)
		r.exec(t, "DELETE FROM facts", "INSERT INTO facts SELECT * FROM log")
		one.ready(t)
	}
	want(t, first.call(t, "Encrypt", fields{"keyid": kept, "plaintext": "AAAA"}), 200, textSuccess)
	want(t, first.call(t, "Encrypt", fields{"keyid": disabled, "plaintext": "AAAA"}), 400, "keyid is disabled")
	testFactsLost(t, r, first, kept, disabled)
}

// testFactsLost has the dkeyservers be away, and then lose what they know.
func testFactsLost(t *testing.T, r *rollback, c *tenant, kept, disabled string) {
	one, two := r.machines[0], r.machines[1]
	r.takeBack(t, "before")
	for _, n := range r.machines {
		n.parts[partServer].kill()
	}
	one.restart(t) // its dkeycache has the head
	one.ready(t)
	refuses(t, c, "without dkeyservers, a disabled key", disabled)
	r.exec(t, "DELETE FROM facts")
	one.restart(t)
	one.withheld(t)

	// As documented: a host that takes the head away everywhere, and restarts all that
	// know of it, has gone back.
	for _, n := range r.machines {
		n.g.kill(partCore)
		n.parts[partCache].kill()
		if err := os.Remove(filepath.Join(n.path("domain"), "facts.json")); err != nil {
			t.Error(err)
		}
	}
	for _, n := range r.machines {
		n.start(t, partServer)
		n.start(t, partCache)
		n.startCore(t)
	}
	one.ready(t)
	two.ready(t)
	want(t, c.call(t, "Encrypt", fields{"keyid": kept, "plaintext": "AAAA"}), 200, textSuccess)
	want(t, c.call(t, "Encrypt", fields{"keyid": disabled, "plaintext": "AAAA"}), 200, textSuccess)
}

// TestFactsAlone has a node of its own be given a whole database from before.
func TestFactsAlone(t *testing.T) {
	t.Parallel()
	g := newTarget(t, splitUnix)
	c := g.enroll(t)
	key := c.createAES(t)
	end := func() {
		t.Helper()
		for _, name := range []string{partKMS, partCore} {
			if err := g.stop(name); err != nil {
				t.Errorf("stop %s: %v", name, err)
			}
		}
	}
	end()
	before, err := os.ReadFile(g.data("ehsm.db"))
	if err != nil {
		t.Fatal(err)
	}
	g.start(t)
	want(t, c.call(t, "DisableKey", fields{"keyid": key}), 200, textSuccessful)
	end()
	if err := os.WriteFile(g.data("ehsm.db"), before, 0o600); err != nil {
		t.Fatal(err)
	}
	g.launch(t, partCore)
	g.launch(t, partKMS)
	n := &node{g: g}
	n.withheld(t)
	refuses(t, c, "from a database of before, a disabled key", key)
	// As documented: the head lies beside the bundle, so a host that takes back all has
	// gone back.
	g.kill(partCore)
	if err := os.Remove(g.data("domain", "facts.json")); err != nil {
		t.Fatal(err)
	}
	g.start(t)
	want(t, c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}), 200, textSuccess)
}
