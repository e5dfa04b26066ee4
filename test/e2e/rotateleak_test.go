package e2e

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// leak is a site whose operators say that a version of the DomainKey has leaked.
type leak struct {
	*rollback
	key   string // file with the operator's key
	lists []string
}

// operate has the operator run a command at a machine, which must succeed.
func (l *leak) operate(t *testing.T, at *node, command ...string) string {
	t.Helper()
	out, errs, err := at.operator(append(command, "--key", l.key)...)
	if err != nil {
		t.Fatalf("ehsm domain %s: %v: %s", command, err, errs)
	}
	return out + errs
}

// exposed is the list of what is to be replaced, as a manager tells it.
func (l *leak) exposed(t *testing.T, node int) []string {
	t.Helper()
	resp, err := http.Get("http://" + l.lists[node] + "/compromised")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("/compromised: %s, %v", resp.Status, err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// kinds counts a list of what is exposed by kind and tenant.
func kinds(list []string) map[string]int {
	count := map[string]int{}
	for _, line := range list {
		kind, rest, _ := strings.Cut(line, "\t")
		tenant, _, _ := strings.Cut(rest, "\t")
		count[strings.TrimSpace(kind+" "+tenant)]++
	}
	return count
}

// TestCompromise marks a version of the DomainKey as leaked while all nodes work and a
// host shows old rows: those are not wrapped anew. What customers have to replace is
// counted until nothing is left, and the version is forgotten.
func TestCompromise(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3, nil)
	l := &leak{key: filepath.Join(s.dir, "operator.key")}
	writeKey(t, l.key, "throw-away", s.operator.(ed25519.PrivateKey))
	for _, n := range s.machines {
		address := freeAddress(t)
		l.lists = append(l.lists, address)
		n.g.settings = append(n.g.settings, "EHSM_KMS_METRICS="+address)
	}
	s.up(t)
	l.rollback = s.rollback(t)
	one, two, three := s.machines[0], s.machines[1], s.machines[2]
	first, other := one.g.enroll(t), one.g.enroll(t)
	key, disabled, deleted := first.createAES(t), first.createAES(t), first.createAES(t)
	theirs := other.createAES(t)
	sealed := sealedBy(t, first, key)
	first.createSecret(t, "shop", "old", nil)
	if got := l.exposed(t, 0); !slices.Equal(got, []string{"no version of the DomainKey is marked as compromised"}) {
		t.Errorf("before a leak: got %q", got)
	}
	l.exec(t, "CREATE TABLE before AS TABLE records")
	want(t, first.call(t, "DisableKey", fields{"keyid": disabled}), 200, textSuccessful)
	want(t, first.on(two.g).call(t, "DeleteKey", fields{"keyid": deleted}), 200, textSuccessful)
	for _, n := range []*node{one, two, three} {
		n.anchored(t, 2)
	}
	l.exec(t, "CREATE TABLE after AS TABLE records")
	stale := fmt.Sprintf("type = 2 AND id IN ('%s', '%s')", disabled, deleted)
	l.exec(t, "DELETE FROM records WHERE "+stale, "INSERT INTO records SELECT * FROM before WHERE "+stale)

	traffic := work(t, first, key, one, two, three)
	contains(t, l.operate(t, two, "compromise"), "marks version 1 of the DomainKey as compromised and asks for version 2")
	s.rewrapped(t, 2)
	traffic.flawless(t)
	l.refused(t, two, disabled, deleted)

	l.exec(t, "DELETE FROM records WHERE "+stale, "INSERT INTO records SELECT * FROM after WHERE "+stale)
	l.replaced(t, first, other, key, disabled, theirs)
	contains(t, l.operate(t, three, "forget", "--version", "1"), "lost for good: all backups")
	for _, n := range s.machines {
		n.said(t, 0, `versions of the DomainKey are forgotten|serves domain [0-9a-f]+ under manifest 3`)
	}
	l.takeBack(t, "before")
	s.restartCores(t)
	for _, n := range s.machines {
		if r := first.on(n.g).call(t, "Decrypt", fields{"keyid": key, "ciphertext": sealed}); r.Code == 200 {
			t.Error("a record under a forgotten version opens")
		}
	}
}

// refused expects that old rows of keys are as they were, under version 1, and that
// operators are told.
func (l *leak) refused(t *testing.T, at *node, keys ...string) {
	t.Helper()
	if count := l.wrapped(t); count[1] != len(keys) || len(count) != 2 {
		t.Errorf("records by version: got %v, want %d old states under 1, all others under 2", count, len(keys))
	}
	var same int
	if err := l.db.QueryRow(t.Context(), "SELECT count(*) FROM records r JOIN before b USING (tenant, id, type, version) WHERE r.sealed = b.sealed AND r.id = ANY ($1)", keys).Scan(&same); err != nil || same != len(keys) {
		t.Errorf("old states that are as they were: got %d, %v", same, err)
	}
	at.awaitStatus(t, "records that are refused", func(s *seen) bool {
		r, told := s.Rewrap()
		return told && r.Done == 2 && r.Refused == uint64(len(keys))
	})
}

// replaced has customers replace what leaked, and looks at the numbers meanwhile.
func (l *leak) replaced(t *testing.T, first, other *tenant, key, disabled, theirs string) {
	t.Helper()
	mine, yours := "tenant "+first.appid, "tenant "+other.appid
	list := l.exposed(t, 1)
	if got, want := kinds(list), map[string]int{"key " + mine: 2, "secret " + mine: 1, "API key " + mine: 1, "key " + yours: 1, "API key " + yours: 1, "end": 1}; !equalCounts(got, want) {
		t.Fatalf("exposed: got %v, want %v", got, want)
	}
	for _, id := range []string{key, disabled, theirs} {
		if !slices.ContainsFunc(list, func(line string) bool {
			return strings.HasPrefix(line, "key\t") && strings.Contains(line, "\tid "+id+"\tmade under version 1")
		}) {
			t.Errorf("key %s is not in the list", id)
		}
	}
	eventually(t, "operators to be told", func() bool {
		out, _, _ := l.machines[0].operator("status")
		return strings.Contains(out, "\nleft to be replaced  3 keys, 1 secret, 2 API keys in 2 tenants")
	})

	other.createAES(t)
	want(t, other.call(t, "DeleteKey", fields{"keyid": theirs}), 200, textSuccessful)
	made := first.createAES(t)
	for _, id := range []string{key, disabled} {
		want(t, first.call(t, "DeleteKey", fields{"keyid": id}), 200, textSuccessful)
	}
	if got, want := kinds(l.exposed(t, 2)), map[string]int{"secret " + mine: 1, "API key " + mine: 1, "API key " + yours: 1, "end": 1}; !equalCounts(got, want) {
		t.Errorf("keys are replaced: got %v, want %v", got, want)
	}
	want(t, first.call(t, "PutSecretValue", fields{"secretName": "shop", "secretData": "new"}), 200, "The shop new version put success.")
	for _, c := range []*tenant{first, other} {
		r := c.call(t, "RotateAPIKey", named("RotateAPIKey", fields{"overlapSeconds": 1}))
		c.apikey = r.text(t, "apikey")
		c.secret(c.apikey)
	}
	eventually(t, "that nothing is left", func() bool { return slices.Equal(l.exposed(t, 0), []string{"end"}) })
	l.machines[1].awaitStatus(t, "that nothing is left", func(s *seen) bool {
		r, told := s.Rewrap()
		return told && r.Compromised == 1 && r.Keys+r.Secrets+r.APIKeys+r.Tenants == 0
	})
	opens(t, first.on(l.machines[2].g), made, sealedBy(t, first, made))
}

func equalCounts(a, b map[string]int) bool { return fmt.Sprint(a) == fmt.Sprint(b) }
