// Package diff says in words what a manifest changes, for people who are about to
// sign it. No TEE program links it.
package diff

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"reflect"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// Effect is what a change does to the security of a domain.
type Effect string

// The effects.
const (
	Weaker   Effect = "weaker"   // the domain asks for less than before
	Admits   Effect = "admits"   // code, a machine or a person that was not in
	Stricter Effect = "stricter" // it asks for more, or somebody is no longer in
	Neutral  Effect = "neutral"
)

// A Change is one difference.
type Change struct {
	Path   string `json:"path"` // of the member, such as settings.allowSim
	Text   string `json:"text"` // such as false -> true
	Effect Effect `json:"effect"`
}

// String is the change in a line, with a mark that cannot be overlooked.
func (c Change) String() string {
	mark := map[Effect]string{Weaker: "WEAKER ", Admits: "ADMITS "}[c.Effect]
	return mark + c.Path + ": " + c.Text
}

// changes collects differences in the order of the manifest's members.
type changes struct{ list []Change }

func (c *changes) add(path string, e Effect, format string, v ...any) {
	c.list = append(c.list, Change{path, fmt.Sprintf(format, v...), e})
}

// Terms returns what differs between two sets of terms: at least one change if
// anything does.
func Terms(old, new *manifest.Terms) []Change {
	c := &changes{}
	if old.Root != new.Root {
		c.add("root", Weaker, "%s -> %s", old.Root, new.Root)
	}
	c.person("administrator", old.Administrator, new.Administrator)
	c.quorum("operators", &old.Operators, &new.Operators)
	none := &manifest.Quorum{}
	c.quorum("custodians", orNone(old.Custodians, none), orNone(new.Custodians, none))
	c.settings(&old.Settings, &new.Settings)
	if len(c.list) == 0 && !reflect.DeepEqual(old, new) {
		c.add("lists", Neutral, "the same entries in another order")
	}
	return c.list
}

// Statements is Terms for manifests, which also have keys made in a TEE.
func Statements(old, new *manifest.Statement) []Change {
	c := &changes{}
	if !bytes.Equal(old.DomainKey, new.DomainKey) {
		c.add("domainKey", Weaker, "%x -> %x", old.DomainKey, new.DomainKey)
	}
	c.recovery(old.Recovery, new.Recovery)
	return append(c.list, Terms(&old.Terms, &new.Terms)...)
}

func orNone(q, none *manifest.Quorum) *manifest.Quorum {
	if q == nil {
		return none
	}
	return q
}

func (c *changes) recovery(old, new *manifest.Recovery) {
	switch {
	case reflect.DeepEqual(old, new):
	case old == nil:
		c.add("recovery", Admits, "a recovery key, %s", Fingerprint(new.PublicKey))
	case new == nil:
		c.add("recovery", Stricter, "no recovery key any more; what it was made for stays recoverable by it")
	default:
		c.add("recovery", Admits, "key %s -> %s", Fingerprint(old.PublicKey), Fingerprint(new.PublicKey))
	}
}

func (c *changes) person(path string, old, new manifest.Person) {
	switch {
	case !bytes.Equal(old.Key, new.Key):
		c.add(path, Admits, "%s (key %s) -> %s (key %s)", old.Name, Fingerprint(old.Key), new.Name, Fingerprint(new.Key))
	case old.Name != new.Name:
		c.add(path, Neutral, "%s is called %s now, with the same key", old.Name, new.Name)
	}
}

// quorum compares groups. The same number of more people is easier to reach.
func (c *changes) quorum(path string, old, new *manifest.Quorum) {
	for _, p := range new.Members {
		if was, ok := old.Member(p.Key); ok {
			c.person(path, was, p)
		} else {
			c.add(path, Admits, "%s with key %s", p.Name, Fingerprint(p.Key))
		}
	}
	for _, p := range old.Members {
		if _, ok := new.Member(p.Key); !ok {
			c.add(path, Stricter, "%s with key %s is out", p.Name, Fingerprint(p.Key))
		}
	}
	if before, after := share(old), share(new); before != after {
		e := Neutral
		switch {
		case len(old.Members) == 0 || len(new.Members) == 0:
		case new.Threshold < old.Threshold:
			e = Weaker
		case new.Threshold > old.Threshold:
			e = Stricter
		}
		c.add(path, e, "it takes %s -> %s", before, after)
	}
}

func share(q *manifest.Quorum) string { return fmt.Sprintf("%d of %d", q.Threshold, len(q.Members)) }

// Fingerprint is the first half of the SHA-256 of a public key, 32 hex digits, for
// people to compare.
func Fingerprint(b []byte) string {
	sum := sha256.Sum256(b)
	return fmt.Sprintf("%x", sum[:16])
}

// toward returns the effect of a change whose weaker side is known.
func toward(weaker bool) Effect {
	if weaker {
		return Weaker
	}
	return Stricter
}

func (c *changes) settings(old, new *manifest.Settings) {
	c.words(old, new)
	switch {
	case bytes.Equal(old.SimRoot, new.SimRoot):
	case new.SimRoot == nil:
		c.add("settings.simRoot", Stricter, "no root for simulated platforms any more")
	default:
		c.add("settings.simRoot", Weaker, "quotes under the root %s for simulated platforms are genuine", Fingerprint(new.SimRoot))
	}
	names(c, "settings.trustRoots", old.TrustRoots, new.TrustRoots, Weaker, Stricter)
	c.code(old.Code, new.Code)
	c.platforms(old.Platforms, new.Platforms)
	c.domainKey(old, new)
	c.accept(old.Accept, new.Accept)
	c.snpTCB(old.SNPMinTCB, new.SNPMinTCB)
	c.numbers(old, new)
	c.limits(&old.Limits, &new.Limits)
	names(c, "settings.disabledKeySpecs", old.DisabledKeySpecs, new.DisabledKeySpecs, Stricter, Weaker)
	names(c, "settings.disabledPaddings", old.DisabledPaddings, new.DisabledPaddings, Stricter, Weaker)
}

// words compares settings that have two values, one of them the weaker.
func (c *changes) words(old, new *manifest.Settings) {
	for _, w := range []struct{ path, old, new, weaker string }{
		{"mode", string(old.Mode), string(new.Mode), string(manifest.Development)},
		{"allowSim", fmt.Sprint(old.AllowSim), fmt.Sprint(new.AllowSim), "true"},
		{"anyPlatform", fmt.Sprint(old.AnyPlatform), fmt.Sprint(new.AnyPlatform), "true"},
		{"hsmWithoutTEE", fmt.Sprint(old.HSMWithoutTEE), fmt.Sprint(new.HSMWithoutTEE), "true"},
		{"enrollment", string(old.Enrollment), string(new.Enrollment), string(manifest.EnrollmentOpen)},
		{"audit", string(old.Audit), string(new.Audit), string(manifest.Batched)},
		{"sealedOnly", fmt.Sprint(old.SealedOnly), fmt.Sprint(new.SealedOnly), "false"},
	} {
		if w.old != w.new {
			c.add("settings."+w.path, toward(w.new == w.weaker), "%s -> %s", w.old, w.new)
		}
	}
}

// numbers compares settings of which more, or less, is weaker.
func (c *changes) numbers(old, new *manifest.Settings) {
	for _, n := range []struct {
		path     string
		old, new int
		more     bool // is weaker
	}{
		{"minEvaluationNumber", int(old.MinEvaluation), int(new.MinEvaluation), false},
		{"tcbGraceHours", old.TCBGrace, new.TCBGrace, true},
		{"collateralGraceHours", old.CollateralGrace, new.CollateralGrace, true},
		{"requestWindowSeconds", old.RequestWindow, new.RequestWindow, true},
		{"deletionWindowDays", old.DeletionWindow, new.DeletionWindow, false},
		{"leaseHours", old.Lease, new.Lease, true},
	} {
		if n.old != n.new {
			c.add("settings."+n.path, toward(n.more == (n.new > n.old)), "%d -> %d", n.old, n.new)
		}
	}
}

// limits compares what an app may have and ask for. 0 is no limit, and so more than
// any other.
func (c *changes) limits(old, new *manifest.Limits) {
	for _, n := range []struct {
		name     string
		old, new int
	}{
		{"requestsPerSecond", old.RequestsPerSecond, new.RequestsPerSecond}, {"burst", old.Burst, new.Burst},
		{"keys", old.Keys, new.Keys}, {"secrets", old.Secrets, new.Secrets},
	} {
		if n.old != n.new {
			more := n.new == 0 || n.old != 0 && n.new > n.old
			c.add("settings.limits."+n.name, toward(more), "%s -> %s", limitText(n.old), limitText(n.new))
		}
	}
}

func limitText(limit int) string {
	if limit == 0 {
		return "none"
	}
	return fmt.Sprint(limit)
}

// snpTCB compares the least TCB of SEV-SNP: one level that is lower accepts more.
func (c *changes) snpTCB(old, new manifest.SNPTCB) {
	none := manifest.SNPTCB{}
	lower := new.Bootloader < old.Bootloader || new.TEE < old.TEE || new.SNP < old.SNP || new.Microcode < old.Microcode
	switch {
	case old == new:
	case old == none:
		c.add("settings.snpMinTcb", Admits, "SEV-SNP chips from %v on", new)
	case new == none:
		c.add("settings.snpMinTcb", Stricter, "no SEV-SNP chip any more")
	default:
		c.add("settings.snpMinTcb", toward(lower), "%v -> %v", old, new)
	}
}

// names compares lists of names.
func names[T ~string](c *changes, path string, old, new []T, added, removed Effect) {
	for _, name := range new {
		if !slices.Contains(old, name) {
			c.add(path, added, "%s is added", name)
		}
	}
	for _, name := range old {
		if !slices.Contains(new, name) {
			c.add(path, removed, "%s is removed", name)
		}
	}
}

func (c *changes) code(old, new []manifest.Code) {
	const path = "settings.code"
	same := func(a manifest.Code) func(manifest.Code) bool {
		a.MinSVN = 0
		return func(b manifest.Code) bool { b.MinSVN = 0; return a == b }
	}
	for _, a := range new {
		i := slices.IndexFunc(old, same(a))
		switch {
		case i < 0:
			c.add(path, Admits, "%s", program(a))
		case old[i].MinSVN != a.MinSVN:
			c.add(path, toward(a.MinSVN < old[i].MinSVN), "%s, before from version %d on", program(a), old[i].MinSVN)
		}
	}
	for _, a := range old {
		if !slices.ContainsFunc(new, same(a)) {
			c.add(path, Stricter, "%s is out", program(a))
		}
	}
}

func program(c manifest.Code) string { return c.Role + " " + c.Program() }

func (c *changes) platforms(old, new []manifest.Platform) {
	const path = "settings.platforms"
	same := func(a manifest.Platform) func(manifest.Platform) bool {
		return func(b manifest.Platform) bool { return a.PPID == b.PPID && a.Serial == b.Serial && a.Chip == b.Chip }
	}
	for _, a := range new {
		i := slices.IndexFunc(old, same(a))
		switch {
		case i < 0:
			c.add(path, Admits, "%s", machine(a))
		case old[i].Name != a.Name:
			c.add(path, Neutral, "%s is called %q now", machine(old[i]), a.Name)
		}
	}
	for _, a := range old {
		if !slices.ContainsFunc(new, same(a)) {
			c.add(path, Stricter, "%s is out", machine(a))
		}
	}
}

func machine(p manifest.Platform) string { return fmt.Sprintf("%q with %s", p.Name, p.Number()) }

func (c *changes) accept(old, new []genesis.Acceptance) {
	const path = "settings.accept"
	same := func(a genesis.Acceptance) func(genesis.Acceptance) bool {
		return func(b genesis.Acceptance) bool { return a.Status == b.Status && a.Advisory == b.Advisory }
	}
	for _, a := range new {
		i := slices.IndexFunc(old, same(a))
		switch {
		case i < 0:
			c.add(path, Weaker, "%s for %s is accepted, because: %s", a.Status, a.Advisory, a.Reason)
		case old[i].Reason != a.Reason:
			c.add(path, Neutral, "%s for %s is accepted, now because: %s", a.Status, a.Advisory, a.Reason)
		}
	}
	for _, a := range old {
		if !slices.ContainsFunc(new, same(a)) {
			c.add(path, Stricter, "%s for %s is no longer accepted", a.Status, a.Advisory)
		}
	}
}
