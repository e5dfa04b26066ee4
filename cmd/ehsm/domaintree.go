package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// A machineView is a machine with the programs on it.
type machineView struct {
	name    string
	ppid    manifest.PPID
	serial  string
	members []overview.Member // dkeyserver, dkeycache, cores
	away    int               // cores that are left out
	last    uint32            // when the last of them was heard of, seconds ago
}

// machines groups a status: the machines of the manifest in its order, then others.
// Programs that were started again are left out, unless all is wanted.
func machines(s *overview.Status, all bool) []*machineView {
	var list []*machineView
	for _, p := range s.Machines {
		list = append(list, &machineView{name: p.Name, ppid: p.PPID, serial: p.Serial})
	}
	for _, m := range s.Members {
		i := slices.IndexFunc(list, func(v *machineView) bool {
			return m.PPID != manifest.PPID{} && m.PPID == v.ppid || m.Serial != "" && m.Serial == v.serial || m.Machine != "" && m.Machine == v.name
		})
		if i < 0 {
			i, list = len(list), append(list, &machineView{name: m.Machine, ppid: m.PPID, serial: m.Serial})
		}
		v := list[i]
		switch {
		case all || m.State == overview.Connected || !superseded(s, &m):
			v.members = append(v.members, m)
		case m.Role == manifest.RoleCore:
			if v.away == 0 || m.SeenSeconds < v.last {
				v.last = m.SeenSeconds
			}
			v.away++
		}
	}
	return list
}

// superseded reports whether another program of the role runs on the machine.
func superseded(s *overview.Status, m *overview.Member) bool {
	return slices.ContainsFunc(s.Members, func(o overview.Member) bool {
		return o.Role == m.Role && o.State == overview.Connected && o.PPID == m.PPID && o.Machine == m.Machine
	})
}

func (v *machineView) title() string {
	name := v.name
	if name == "" && (v.ppid != manifest.PPID{}) {
		name = "machine " + v.ppid.String()[:8]
	}
	if name == "" {
		name = "a machine that is not known"
	}
	i := slices.IndexFunc(v.members, func(m overview.Member) bool { return m.TCBStatus != "" })
	switch {
	case i >= 0:
		return name + "  " + v.members[i].Platform + " " + v.members[i].TCBStatus
	case len(v.members) > 0:
		return name + "  " + v.members[0].Platform
	}
	return name
}

// treeText renders the machines, each with its programs.
func (v *statusView) treeText() string {
	var b strings.Builder
	for _, machine := range machines(v.Status, false) {
		fmt.Fprintln(&b, machine.title())
		if len(machine.members) == 0 {
			fmt.Fprintln(&b, "  nobody of it was here in the last 24 hours")
		}
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, m := range machine.members {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", indent(&m), m.Instance.String()[:8], stateText(&m), v.manifestText(&m), v.keyText(&m), leaseText(&m))
		}
		w.Flush()
		if machine.away > 0 {
			fmt.Fprintf(&b, "    and %d that ended, the last of them %s\n", machine.away, agoText(machine.last))
		}
	}
	return b.String()
}

func indent(m *overview.Member) string {
	if m.Role == manifest.RoleCore {
		return "    " + m.Role
	}
	if m.Evidence == overview.ByItself {
		return "  " + m.Role + " (answers)"
	}
	return "  " + m.Role
}

func stateText(m *overview.Member) string {
	switch m.State {
	case overview.Removed:
		return "REMOVED, seen " + agoText(m.SeenSeconds)
	case overview.Left:
		return "AWAY, seen " + agoText(m.SeenSeconds)
	}
	return "here"
}

func (v *statusView) manifestText(m *overview.Member) string {
	if m.Manifest < v.Manifest.Version && m.State != overview.Removed {
		return fmt.Sprintf("manifest %d (behind)", m.Manifest)
	}
	return fmt.Sprintf("manifest %d", m.Manifest)
}

func (v *statusView) keyText(m *overview.Member) string {
	switch {
	case m.DomainKey == 0:
		return "no DomainKey"
	case m.DomainKey < v.Key.Version:
		return fmt.Sprintf("DomainKey %d (behind)", m.DomainKey)
	}
	return fmt.Sprintf("DomainKey %d", m.DomainKey)
}

// leaseText is for how long a program may go on without the others. A dkeyserver
// has no lease.
func leaseText(m *overview.Member) string {
	if m.Role == manifest.RoleDKeyServer || m.DomainKey == 0 || m.State == overview.Removed {
		return ""
	}
	left := time.Duration(m.LeaseSeconds)*time.Second - time.Duration(m.SeenSeconds)*time.Second
	if left <= 0 {
		return "lease ended"
	}
	return "lease " + overview.Words(left)
}
