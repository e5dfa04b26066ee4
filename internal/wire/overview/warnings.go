package overview

import (
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// A Warning is what an operator should not overlook.
type Warning struct {
	Code string `json:"code"` // for programs, such as tcb-grace
	Text string `json:"text"`
}

// topics are the parts of a status that warn, in the order in which they are shown.
func topics() []func(*Status) []Warning {
	return []func(*Status) []Warning{warnDomain, warnKey, warnRecovery, warnFacts, warnServers, warnMembers}
}

// Warnings says what in s deserves a look: by the status alone, so that whoever has
// it warns of the same.
func (s *Status) Warnings() []Warning {
	all := []Warning{}
	for _, topic := range topics() {
		all = append(all, topic(s)...)
	}
	return all
}

func warnDomain(s *Status) (all []Warning) {
	if s.Domain.AllowSim {
		all = append(all, Warning{"simulation", "simulated platforms are admitted: keys are not protected by hardware"})
	}
	if s.Domain.AnyPlatform {
		all = append(all, Warning{"any-platform", "any machine is admitted: an attestation key extracted from one is enough"})
	}
	if s.Domain.HSMWithoutTEE {
		all = append(all, Warning{"hsm-without-tee", "the HSM may stand on a machine without a TEE: no protection against this host"})
	}
	if s.Domain.Mode == manifest.Production && s.Manifest.Threshold == 1 {
		all = append(all, Warning{"one-operator", "one operator alone decides: whoever gets that key gets every key"})
	}
	return all
}

func warnKey(s *Status) []Warning {
	switch {
	case s.Key.Lost != "":
		return []Warning{{"no-domain-key", "this dkeyserver has lost the DomainKey: " + s.Key.Lost}}
	case s.Key.Version == 0 && s.Recovery != nil && s.Recovery.Asked != nil:
		return []Warning{{"no-domain-key", "this dkeyserver has no DomainKey: it " + s.Recovery.Waits()}}
	case s.Key.Version == 0:
		return []Warning{{"no-domain-key", "this dkeyserver has no DomainKey yet"}}
	}
	return nil
}

// warnServers counts who could give the DomainKey to a new machine.
func warnServers(s *Status) []Warning {
	have := 0
	for _, m := range s.Members {
		if m.Role == manifest.RoleDKeyServer && m.State == Connected && m.DomainKey > 0 {
			have++
		}
	}
	if have == 1 {
		return []Warning{{"one-dkeyserver", "only one dkeyserver is known to have the DomainKey: with its machine every key would be lost"}}
	}
	return nil
}

// warnMembers looks at each member.
func warnMembers(s *Status) (all []Warning) {
	for i := range s.Members {
		m := &s.Members[i]
		if m.State == Removed {
			continue
		}
		who := m.Role + " " + m.Place()
		add := func(code, format string, v ...any) {
			all = append(all, Warning{code, who + " " + fmt.Sprintf(format, v...)})
		}
		if m.Debug {
			add("debug", "runs in debug mode: its host can read all keys")
		}
		if t := m.TCBGraceUntil; !t.IsZero() {
			add("tcb-grace", "is out of date (%s) and in grace until %s", m.TCBStatus, date(t))
		}
		if t := m.CollateralGraceUntil; !t.IsZero() {
			add("collateral-grace", "has collateral that has ended, and is in grace until %s", date(t))
		}
		if m.State == Connected && !s.spreads() && m.Manifest < s.Manifest.Version {
			add("old-manifest", "is still under manifest %d", m.Manifest)
		}
		if m.State == Connected && !s.spreads() && m.DomainKey < s.Key.Version {
			add("old-domain-key", "has %s", keyText(m.DomainKey))
		}
		if m.State == Left && m.Role == manifest.RoleDKeyCache && m.DomainKey > 0 && !s.replaced(m) {
			left := time.Duration(m.LeaseSeconds)*time.Second - time.Duration(m.SeenSeconds)*time.Second
			if left > 0 {
				add("lease", "is away, and its lease ends in %s", Words(left))
			} else {
				add("lease", "is away, and its lease has ended")
			}
		}
	}
	return all
}

// spreadTime is for how long a manifest, with the DomainKey that it asks for, may be
// on its way to all programs before it is worth a warning: more than their longest
// heartbeat.
const spreadTime = 40 * time.Second

// spreads reports whether the manifest may still be on its way.
func (s *Status) spreads() bool {
	since := s.Manifest.Since
	return !since.IsZero() && s.At.Sub(since) < spreadTime
}

// Following is how many programs are still to follow to a manifest that has just come
// into force, or to its DomainKey. Later there are warnings in their place.
func (s *Status) Following() (n int) {
	for i := range s.Members {
		m := &s.Members[i]
		if m.State == Connected && s.spreads() && (m.Manifest < s.Manifest.Version || m.DomainKey < s.Key.Version) {
			n++
		}
	}
	return n
}

// replaced reports whether another program of a member's role is connected from its
// machine: it was started again.
func (s *Status) replaced(m *Member) bool {
	for i := range s.Members {
		if o := &s.Members[i]; o.Role == m.Role && o.State == Connected && o.PPID == m.PPID && o.Machine == m.Machine {
			return true
		}
	}
	return false
}

func keyText(version uint32) string {
	if version == 0 {
		return "no DomainKey yet"
	}
	return fmt.Sprintf("only version %d of the DomainKey", version)
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// Place says where a member is: the name of its machine, else its number.
func (m *Member) Place() string {
	switch {
	case m.Machine != "":
		return "on " + m.Machine
	case m.PPID != manifest.PPID{}:
		return "on the machine " + m.PPID.String()[:8]
	}
	return m.Instance.String()[:8]
}

// Words is a duration as people say it, such as "3 minutes".
func Words(d time.Duration) string {
	for _, u := range []struct {
		unit  time.Duration
		name  string
		least int
	}{{24 * time.Hour, "day", 3}, {time.Hour, "hour", 2}, {time.Minute, "minute", 1}, {time.Second, "second", 0}} {
		switch n := int(d / u.unit); {
		case n == 1 && n >= u.least:
			return "a " + u.name
		case n >= u.least:
			return fmt.Sprintf("%d %ss", n, u.name)
		}
	}
	return "no time"
}
