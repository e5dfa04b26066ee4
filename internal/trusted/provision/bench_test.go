package provision

import (
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
)

// BenchmarkProvision is the whole of what a program that starts has to do: connect,
// verify the manifests, attest and be attested, fetch and open the DomainKey.
func BenchmarkProvision(b *testing.B) {
	for _, row := range []struct {
		name          string
		role, of      channel.Role
		at, goroutine int
	}{
		{"core from dkeycache", channel.Core, channel.DKeyCache, 1, 1},
		{"dkeycache from dkeyserver", channel.DKeyCache, channel.DKeyServer, 0, 1},
		{"many dkeycaches from dkeyserver", channel.DKeyCache, channel.DKeyServer, 0, 8},
	} {
		b.Run(row.name, func(b *testing.B) {
			a := newRealm(b)
			address := newProgram(b, row.at, row.of, a.knowing(b), a.rooted(b)).serve(b)
			c := newProgram(b, 1, row.role, nil, nil).client(b, address)
			b.SetParallelism(row.goroutine)
			b.ResetTimer()
			if row.goroutine == 1 {
				for b.Loop() {
					provisionOnce(b, a, c)
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					provisionOnce(b, a, c)
				}
			})
		})
	}
}

func provisionOnce(b *testing.B, a *realm, of *Client) {
	c := &Client{
		Role: of.Role, Holder: NewHolder(heap), Domain: NewKnown(a.last.Domain, clock), Channel: of.Channel, Join: of.Join,
		Dial: of.Dial, Servers: of.Servers, Self: of.Self, Leased: of.Leased, Log: of.Log,
	}
	conn, err := c.Dial(b.Context(), c.Servers[0])
	if err != nil {
		b.Fatal(err)
	}
	d, err := c.meet(conn)
	if err != nil {
		b.Fatal(err)
	}
	cfg := c.Channel
	cfg.Role, cfg.PeerRoles, cfg.Domain, cfg.Policy = c.Role, servers(c.Role), a.last.Domain, d
	ch, err := c.Join(b.Context(), conn, &cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer ch.Close()
	s := &session{Client: c, domain: d, ch: ch}
	if missing, err := s.beat(b.Context()); err != nil || missing {
		b.Fatal(err)
	}
	c.Holder.Release()
}
