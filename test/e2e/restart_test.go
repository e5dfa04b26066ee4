package e2e

import (
	"net/http"
	"testing"
)

// TestReplaySurvivesRestart is the second half of line 41: a body that was used
// up stays used up on a core that has not seen it.
func TestReplaySurvivesRestart(t *testing.T) {
	eachTarget(t, func(t *testing.T, g *target) {
		c := g.enroll(t)
		key := c.createAES(t)
		type use struct {
			request *request
			then    string
		}
		create := fields{"keyspec": "EH_AES_GCM_256", "origin": internalKey, "keyusage": encryptDecrypt}
		var used []use
		for _, row := range []struct {
			first   string
			payload fields
			then    string
		}{
			{"ListKey", nil, "DeleteAllKey"}, {"ListKey", fields{}, "DeleteALLKey"}, {"EnableKey", fields{"keyid": key}, "DeleteKey"},
			{"EnableKey", fields{"keyid": key}, "DisableKey"}, {"CreateKey", create, "CreateKey"},
			{"CreateKey", create.with(fields{"action": "CreateKey"}), "CreateKey"},
		} {
			q := c.unsigned(row.payload).signed(c.apikey)
			if r := c.deliver(t, row.first, q); r.Code != 200 {
				t.Errorf("%s: got %s", row.first, r.body)
			}
			used = append(used, use{q, row.then})
		}
		keys := len(c.list(t))
		g.kill()
		g.start(t)
		for _, u := range used {
			want(t, c.deliver(t, u.then, u.request), 400, textReplay)
		}
		if n := len(c.list(t)); n != keys {
			t.Errorf("%d keys are left of %d", n, keys)
		}
		want(t, c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}), 200, textSuccess)
	})
}

// TestRestart: an orderly end loses nothing, and clients find the same service
// again.
func TestRestart(t *testing.T) {
	eachTarget(t, func(t *testing.T, g *target) {
		c := g.enroll(t)
		enabled, disabled, deleted := c.createAES(t), c.createAES(t), c.createAES(t)
		sealed := c.call(t, "Encrypt", fields{"keyid": enabled, "plaintext": "AAAA", "aad": "BBBB"}).text(t, "ciphertext")
		want(t, c.call(t, "DisableKey", fields{"keyid": disabled}), 200, textSuccessful)
		want(t, c.call(t, "DeleteKey", fields{"keyid": deleted}), 200, textSuccessful)
		before := c.list(t)
		for i := len(g.names()) - 1; i >= 0; i-- {
			if err := g.stop(g.names()[i]); err != nil {
				t.Errorf("stop %s: %v", g.names()[i], err)
			}
		}
		g.start(t)
		after := c.list(t)
		for key, k := range before {
			if after[key] != k || len(after) != len(before) {
				t.Errorf("key is listed as %+v, was %+v", after[key], k)
			}
		}
		r := c.call(t, "Decrypt", fields{"keyid": enabled, "ciphertext": sealed, "aad": "BBBB"})
		want(t, r, 200, textSuccess)
		want(t, c.call(t, "Encrypt", fields{"keyid": disabled, "plaintext": "AAAA"}), 400, "keyid is disabled")
		want(t, c.call(t, "Encrypt", fields{"keyid": deleted, "plaintext": "AAAA"}), 400, textKeyID)
	})
}

// TestPartsAlone: a manager without its core says so, and recovers when the
// core comes back.
func TestPartsAlone(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{splitUnix, splitTCP} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g := newTarget(t, kind)
			c := g.enroll(t)
			key := c.createAES(t)
			g.kill(partCore)
			r := c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"})
			want(t, r, 500, "Server internal error, please contact the administrator.")
			if r.signature != "" {
				t.Error("a reply without a core is signed")
			}
			g.plain(t, "/healthz", http.StatusOK)
			g.plain(t, "/readyz", http.StatusServiceUnavailable)
			g.start(t)
			g.plain(t, "/readyz", http.StatusOK)
			want(t, c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}), 200, textSuccess)
		})
	}
}

// plain expects an HTTP status of a page beside the API.
func (g *target) plain(t *testing.T, path string, status int) {
	t.Helper()
	resp, err := g.http.Get(g.base() + path)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != status {
		t.Errorf("%s: got HTTP %d, want %d", path, resp.StatusCode, status)
	}
}
