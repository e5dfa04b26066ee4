package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// testClusterChanges measures how long after a change was acknowledged by one
// node the others still go by what was before.
func testClusterChanges(t *testing.T, c *cluster) {
	n := rounds(120, 1200)
	byKind := map[string][]time.Duration{}
	var all []time.Duration
	for i := range n {
		kind := []string{"disable", "delete", "delete all", "secret"}[i%4]
		lags := measureChange(t, c, kind, i)
		byKind[kind] = append(byKind[kind], lags...)
		all = append(all, lags...)
	}
	t.Logf("until %d changes were seen by the %d other nodes: %s", n, nodes-1, distribution(all))
	for kind, lags := range byKind {
		t.Logf("%s: %s", kind, distribution(lags))
	}
}

// distribution sorts durations and describes them.
func distribution(all []time.Duration) string {
	slices.Sort(all)
	at := func(percent int) time.Duration { return all[(len(all)-1)*percent/100].Round(100 * time.Microsecond) }
	return fmt.Sprintf("%d samples, p50 %v, p90 %v, p99 %v, max %v", len(all), at(50), at(90), at(99), at(100))
}

// measureChange makes one change at a node, and returns for each of the others
// how long it answered as before. The others have all rows at hand.
func measureChange(t *testing.T, c *cluster, kind string, i int) (lags []time.Duration) {
	t.Helper()
	tenant := c.nodes[i%nodes].enroll(t)
	change, read, seen := prepareChange(t, tenant, kind)
	for range 2 {
		for _, g := range c.nodes {
			if r := read(tenant.on(g)); seen(r) {
				t.Fatalf("%s: before the change: got %s", kind, r.body)
			}
		}
	}
	change()
	acknowledged := time.Now()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for j, g := range c.nodes {
		if j == i%nodes {
			if r := read(tenant); !seen(r) {
				t.Errorf("%s: at the same node: got %s", kind, r.body)
			}
			continue
		}
		wg.Go(func() {
			lag, ok := await(tenant.on(g), read, seen, acknowledged)
			if !ok {
				t.Errorf("%s: not seen by another node after %v", kind, lag)
			}
			mu.Lock()
			defer mu.Unlock()
			lags = append(lags, lag)
		})
	}
	wg.Wait()
	return lags
}

// await repeats a read until it shows the change, and returns the age of the
// change then. It is false if a request that began later than the grace after the
// change was still answered as before; on a busy machine replies come later.
func await(c *tenant, read func(*tenant) reply, seen func(reply) bool, since time.Time) (lag time.Duration, ok bool) {
	for {
		began := time.Since(since)
		if seen(read(c)) {
			return time.Since(since), true
		}
		if began > grace {
			return began, false
		}
		<-time.After(time.Millisecond)
	}
}

// prepareChange returns a change, a request that depends on it, and whether a
// reply to that is the one after the change.
func prepareChange(t *testing.T, c *tenant, kind string) (change func(), read func(*tenant) reply, seen func(reply) bool) {
	t.Helper()
	if kind == "secret" {
		name := fields{"secretName": "s"}
		want(t, c.call(t, "CreateSecret", name.with(fields{"secretData": "old"})), 200, "The s create success.")
		return func() {
				want(t, c.call(t, "PutSecretValue", name.with(fields{"secretData": "new"})), 200, "The s new version put success.")
			}, func(c *tenant) reply { return c.call(t, "GetSecretValue", name) },
			func(r reply) bool { return r.Result["secretData"] == "new" }
	}
	key := c.createAES(t)
	action, payload, text := "DisableKey", fields{"keyid": key}, "keyid is disabled"
	switch kind {
	case "delete":
		action, text = "DeleteKey", textKeyID
	case "delete all":
		action, payload, text = "DeleteAllKey", nil, textKeyID
	}
	return func() { want(t, c.call(t, action, payload), 200, textSuccessful) },
		func(c *tenant) reply { return c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}) },
		func(r reply) bool { return r.Message == text }
}

// testClusterRivals lets all nodes change one key and one secret at the same time.
func testClusterRivals(t *testing.T, c *cluster) {
	at := c.everywhere(t)
	key := at[0].createAES(t)
	want(t, at[0].call(t, "CreateSecret", fields{"secretName": "rival", "secretData": "x"}), 200, "The rival create success.")
	const puts = 24
	inParallel(t, puts, func(ctx context.Context, i int) (reply, error) {
		r, err := at[i%nodes].try(ctx, []string{"DisableKey", "EnableKey"}[i/nodes%2], fields{"keyid": key})
		if err != nil || r.Code != 200 {
			return r, fmt.Errorf("change of a key: %s, %v", r.body, err)
		}
		r, err = at[i%nodes].try(ctx, "PutSecretValue", fields{"secretName": "rival", "secretData": fmt.Sprint(i)})
		if err == nil && r.Code != 200 {
			err = fmt.Errorf("put of a secret: %s", r.body)
		}
		return r, err
	})
	seen := map[any]bool{}
	for version := 2; version <= puts+1; version++ {
		r := at[version%nodes].call(t, "GetSecretValue", fields{"secretName": "rival", "versionId": version})
		want(t, r, 200, textSuccessful)
		seen[r.Result["secretData"]] = true
	}
	if len(seen) != puts {
		t.Errorf("%d puts left %d values", puts, len(seen))
	}
	states := map[int64]bool{}
	for _, c := range at {
		states[c.list(t)[key].state] = true
	}
	if len(states) != 1 {
		t.Errorf("nodes list the key in %d states", len(states))
	}
}

// testClusterDeleteAll kills a node in the middle of a large deletion. All nodes
// refuse the keys at once, and another one finishes the sweep.
func testClusterDeleteAll(t *testing.T, c *cluster) {
	const many = 1200 // in three steps
	at := c.everywhere(t)
	inParallel(t, many, func(ctx context.Context, i int) (reply, error) {
		return at[i%nodes].try(ctx, "CreateKey", fields{"keyspec": "EH_AES_GCM_128", "origin": internalKey, "keyusage": encryptDecrypt})
	})
	db := c.database(t)
	unswept := func() (n int) {
		row := db.QueryRow(t.Context(), "SELECT count(*) FROM records WHERE tenant = $1 AND type = 2 AND NOT hidden", at[0].appid)
		if err := row.Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := len(at[0].list(t)); n != many {
		t.Fatalf("%d keys are listed, want %d", n, many)
	}
	want(t, at[0].call(t, "DeleteAllKey", nil), 200, textSuccessful)
	left := unswept()
	for left == many {
		left = unswept()
	}
	at[0].kill(partKMS)
	t.Logf("a node was killed when %d of %d keys were left", left, many)
	for _, c := range at[1:] {
		if n := len(c.list(t)); n != 0 {
			t.Errorf("%d keys are listed after their deletion", n)
		}
	}
	// A node looks for what others have left every 30 s, or when it has a sweep of its own.
	want(t, c.nodes[1].enroll(t).call(t, "DeleteAllKey", nil), 200, textSuccessful)
	for began := time.Now(); unswept() > 0; {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("the sweep is not finished: %d of %d are left", unswept(), many)
		}
		<-time.After(10 * time.Millisecond)
	}
	at[0].start(t)
	for i, c := range at {
		if n := len(c.list(t)); n != 0 {
			t.Errorf("node %d lists %d deleted keys", i, n)
		}
	}
}

// database connects to the database of the nodes.
func (c *cluster) database(t *testing.T) *pgx.Conn {
	t.Helper()
	url, _ := strings.CutPrefix(c.nodes[0].settings[0], "EHSM_KMS_DATABASE=")
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(context.Background()) })
	return db
}
