package e2e

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// sealless starts the machines of a site anew, without seal keys.
func (s *site) sealless(t *testing.T) *site {
	t.Helper()
	for _, n := range s.machines {
		n.noSeal = true
		n.parts[partTEE].kill()
		n.start(t, partTEE)
	}
	return s
}

// unsigned is what a dkeyserver says that has no DomainKey to sign with.
func (n *node) unsigned(t *testing.T) string {
	t.Helper()
	out, errs, err := n.operator("status", "--unsigned")
	if err != nil {
		t.Fatalf("status: %v: %s", err, errs)
	}
	return out
}

// gives has custodians release their shares to a dkeyserver that has asked since it
// printed so many bytes.
func (c *ceremony) gives(t *testing.T, n *node, printed int, version string, people ...string) {
	t.Helper()
	n.said(t, printed, `waits for the shares of 2 custodians`)
	for i, name := range people {
		c.release(t, n, 0, name, c.of("share-"+name))
		if i == 0 {
			n.said(t, printed, "has 1 of 2 shares: "+name)
			contains(t, n.unsigned(t), "waits for 2 of dave, erin, fay (has "+name+")")
		}
	}
	n.said(t, printed, `has the DomainKey, versions `+version+`, from custodians; it is kept in memory only`)
}

// TestCustodiansAtEachStart has a domain whose machines have no seal keys, as TDX and
// SEV-SNP have none: after a start custodians give the root its DomainKey, or another
// dkeyserver does, and nothing else.
func TestCustodiansAtEachStart(t *testing.T) {
	t.Parallel()
	c := ceremonyOn(t, newSite(t, 2, nil).sealless(t))
	one, two := c.machines[0], c.machines[1]
	if _, err := os.Stat(one.path("domain/domainkey.sealed")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a DomainKey is kept: %v", err)
	}
	for _, name := range []string{"dave", "erin", "fay"} {
		if err := os.WriteFile(c.of("share-"+name), c.read(t, one.path("domain/share-"+name+".sealed")), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// The first start: there is no other dkeyserver yet, but it would be asked.
	one.start(t, partServer)
	one.start(t, partCache)
	one.said(t, 0, "custodians=true dkeyservers=1")
	c.gives(t, one, 0, `\[1\]`, "dave", "erin")
	one.g.start(t)
	tenant := one.g.enroll(t)
	key := tenant.createAES(t)
	sealed := sealedBy(t, tenant, key)
	if _, err := os.Stat(one.path("domain.restore")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what custodians have sent stays: %v", err)
	}

	// A worker has it from the root, in memory, and the escrow beside it.
	two.start(t, partServer)
	two.said(t, 0, "the DomainKey is kept in memory only")
	two.said(t, 0, "the escrow is written")
	c.change(t, one, func(s *manifest.Settings) { s.DomainKey.Version = 2 })
	one.said(t, 0, "the DomainKey has a new version")
	two.awaitStatus(t, "version 2 in escrow", func(s *seen) bool {
		return s.Key.Version == 2 && s.Recovery != nil && len(s.Recovery.Versions) == 2
	})

	// The root is started again: the worker is faster than people.
	printed := one.g.out.size()
	one.parts[partServer].kill()
	one.start(t, partServer)
	one.said(t, printed, "the DomainKey is kept in memory only")
	one.awaitStatus(t, "the root has version 2 from the worker", func(s *seen) bool { return s.Key.Version == 2 })
	if text, _ := one.g.out.after(printed); strings.Contains(string(text), "waits for the shares") {
		t.Error("custodians were asked where a dkeyserver is there")
	}

	// All dkeyservers are ended. What serves goes on; then custodians come again.
	one.parts[partServer].kill()
	two.parts[partServer].kill()
	opens(t, tenant, key, sealed)
	printed = one.g.out.size()
	one.start(t, partServer)
	one.said(t, printed, `waits for the shares of 2 custodians`)
	stale := c.read(t, c.of("dave.answer"))
	c.bring(t, one, "stale.answer", stale)
	one.said(t, printed, `stale.answer is refused: answer to another restoration`)
	contains(t, one.unsigned(t), "not here: waits for 2 of dave, erin, fay, or for another dkeyserver", "WARNING  this dkeyserver has no DomainKey")
	if out, _, err := one.operator("status"); err == nil {
		t.Errorf("a dkeyserver without the DomainKey has signed:\n%s", out)
	}
	c.gives(t, one, printed, `\[1 2\]`, "fay", "dave")
	one.awaitStatus(t, "it signs", func(s *seen) bool { return s.Recovery != nil && s.Recovery.Asked == nil })
	one.g.kill()
	one.parts[partCache].kill()
	one.start(t, partCache)
	one.g.start(t)
	opens(t, tenant, key, sealed)

	c.replaces(t, one)

	// A machine that operators have taken out gets it from nobody.
	c.change(t, one, func(s *manifest.Settings) { s.Platforms = s.Platforms[:1] })
	if err := os.WriteFile(two.path("domain/"+manifest.FileName(3)), c.read(t, one.path("domain/"+manifest.FileName(3))), 0o600); err != nil {
		t.Fatal(err)
	}
	printed = two.g.out.size()
	two.start(t, partServer)
	two.said(t, printed, `custodians are not asked for the DomainKey.*platform is not admitted`)
}

// replaces has the custodians of now give a TEE what it takes to make the recovery key
// of others, as the machine keeps no DomainKey.
func (c *ceremony) replaces(t *testing.T, n *node) {
	t.Helper()
	c.custodian(t, "gus")
	next := c.of("next.json")
	c.ehsm(t, 0, "domain", "manifest", "edit", n.path("domain/"+manifest.FileName(2)), "--out", next,
		"--remove", "custodians.members=fay", "--add", "custodians.members=@"+c.of("gus.key.pub"))
	printed := n.g.out.size()
	p := n.load(t, n.serverEnv(), partServer, "recovery", next)
	n.said(t, printed, `waits for the shares of 2 custodians`)
	for _, name := range []string{"erin", "fay"} {
		c.ehsm(t, 0, "domain", "custodian", "release", "--key", c.of(name+".key"), "--share", c.of("share-"+name), "--domain", c.domain,
			"--out", n.path("domain.recovery/"+name+".answer"), n.path("domain.recovery/request"))
	}
	<-p.exited
	if p.err != nil {
		t.Fatalf("the recovery key of others: %v", p.err)
	}
	n.said(t, printed, "for custodian gus: ")
	for _, path := range []string{n.path("domain.recovery"), n.path("domain/domainkey.sealed")} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := os.Stat(n.path("domain/share-gus-m3.sealed")); err != nil {
		t.Error(err)
	}
}
