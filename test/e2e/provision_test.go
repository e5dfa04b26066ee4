package e2e

import (
	"testing"
)

// TestSite has two machines with a root and a worker: keys of one node are used on
// the other, and neither traffic nor a new core needs the root.
func TestSite(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, nil)
	one, two := s.machines[0], s.machines[1]
	for _, n := range s.machines {
		n.start(t, partServer)
		n.start(t, partCache)
		n.g.start(t)
	}
	first := one.g.enroll(t)
	second := first.on(two.g)
	key := first.createAES(t)
	seal := func(c *tenant) string {
		return c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}).text(t, "ciphertext")
	}
	opens := func(c *tenant, sealed string) {
		t.Helper()
		if r := c.call(t, "Decrypt", fields{"keyid": key, "ciphertext": sealed}); r.Code != 200 || r.Result["plaintext"] != "AAAA" {
			t.Errorf("decrypted to %s", r.body)
		}
	}
	sealed := seal(first)
	opens(second, sealed)

	one.parts[partServer].kill()
	opens(second, seal(first))
	two.g.kill(partCore)
	two.g.start(t)
	opens(second, sealed)
	two.parts[partCache].kill()
	two.start(t, partCache)
	two.g.kill(partCore)
	two.g.start(t)
	opens(second, sealed)
}
