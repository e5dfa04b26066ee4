package channel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

func TestChannel(t *testing.T) {
	w := newWorld(t)
	cc, _ := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
	sc, sp := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache, channel.DKeyServer)
	sp.manifest.Store(7)
	var seen []uint64
	cc.ManifestSeen = func(_ channel.Role, v uint64) { seen = append(seen, v) }
	client, server := join(t, cc, sc)

	p := client.Peer()
	if p.Role != channel.DKeyServer || p.Decision.Platform != "two" || p.Decision.Enclave != "dkeyserver" || p.Manifest != 7 || p.Quote == nil || !p.Attested.Equal(w.now) {
		t.Errorf("Peer of the client: got %+v", p)
	}
	if q := server.Peer(); q.Role != channel.DKeyCache || q.Decision.Platform != "one" || q.Manifest != 1 || bytes.Equal(q.HPKEKey, p.HPKEKey) {
		t.Errorf("Peer of the server: got %+v", q)
	}
	if fmt.Sprint(seen) != "[7]" {
		t.Errorf("ManifestSeen: got %v, want [7]", seen)
	}
	for _, size := range []int{1, 100, channel.MaxMessage} {
		m := bytes.Repeat([]byte{byte(size)}, size)
		go server.Send(t.Context(), m)
		if got, err := client.Receive(t.Context()); err != nil || !bytes.Equal(got, m) {
			t.Errorf("Receive of %d bytes: got %d, %v", size, len(got), err)
		}
	}
}

func TestGoodbye(t *testing.T) {
	w := newWorld(t)
	cc, _ := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
	sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
	client, server := join(t, cc, sc)
	if err := client.Send(t.Context(), []byte("last")); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if m, err := server.Receive(t.Context()); err != nil || string(m) != "last" {
		t.Errorf("Receive before the goodbye: got %q, %v", m, err)
	}
	if _, err := server.Receive(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("Receive after the goodbye: got %v, want EOF", err)
	}
	if err := client.Send(t.Context(), []byte("more")); !errors.Is(err, channel.ErrClosed) {
		t.Errorf("Send after Close: got %v, want ErrClosed", err)
	}
	if _, err := client.Receive(t.Context()); !errors.Is(err, channel.ErrClosed) {
		t.Errorf("Receive after Close: got %v, want ErrClosed", err)
	}
}

func TestSendRefusals(t *testing.T) {
	w := newWorld(t)
	cc, _ := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
	sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
	client, server := join(t, cc, sc)
	for _, size := range []int{0, channel.MaxMessage + 1} {
		if err := client.Send(t.Context(), make([]byte, size)); !errors.Is(err, channel.ErrTooLong) {
			t.Errorf("Send of %d bytes: got %v, want ErrTooLong", size, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := client.Send(ended, []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Send without time: got %v, want Canceled", err)
	}
	if _, err := client.Receive(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Receive without time: got %v, want Canceled", err)
	}
	go client.Send(t.Context(), []byte("still there"))
	if m, err := server.Receive(t.Context()); err != nil || string(m) != "still there" {
		t.Errorf("Receive after refused sends: got %q, %v", m, err)
	}
}

func TestSeal(t *testing.T) {
	w := newWorld(t)
	cc, _ := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
	sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
	client, server := join(t, cc, sc)
	other, _ := join(t, cc, sc)
	const label = "domain key 3"
	dk := secret.Copy(bytes.Repeat([]byte{3}, 32))
	sealed, err := server.Seal(label, dk)
	if err != nil {
		t.Fatal(err)
	}
	if len(sealed) != 32+channel.Overhead {
		t.Errorf("Seal: got %d bytes, want %d", len(sealed), 32+channel.Overhead)
	}
	if got, err := client.Open(label, sealed); err != nil || !got.Equal(dk) {
		t.Errorf("Open: got %v, want the key", err)
	}
	flip := func(at int) []byte {
		b := bytes.Clone(sealed)
		b[at] ^= 1
		return b
	}
	for name, row := range map[string]struct {
		at     *channel.Conn
		label  string
		sealed []byte
	}{
		"another label":      {client, "domain key 4", sealed},
		"no label":           {client, "", sealed},
		"the own end":        {server, label, sealed},
		"another channel":    {other, label, sealed},
		"another format":     {client, label, flip(0)},
		"another key share":  {client, label, flip(1)},
		"another ciphertext": {client, label, flip(len(sealed) - 20)},
		"another tag":        {client, label, flip(len(sealed) - 1)},
		"one byte short":     {client, label, sealed[:len(sealed)-1]},
		"one byte more":      {client, label, append(bytes.Clone(sealed), 0)},
		"nothing sealed":     {client, label, sealed[:channel.Overhead]},
		"nothing":            {client, label, nil},
		"too long":           {client, label, append(bytes.Clone(sealed), make([]byte, 64<<10)...)},
	} {
		if got, err := row.at.Open(row.label, row.sealed); !errors.Is(err, channel.ErrOpen) || got.Len() != 0 {
			t.Errorf("Open with %s: got %v, want ErrOpen", name, err)
		}
	}
	for name, row := range map[string]struct {
		label string
		size  int
	}{"no label": {"", 32}, "long label": {string(make([]byte, 65)), 32}, "no key": {label, 0}, "too much": {label, 64<<10 + 1}} {
		if _, err := server.Seal(row.label, secret.New(make([]byte, row.size))); !errors.Is(err, channel.ErrTooLong) {
			t.Errorf("Seal with %s: got %v, want ErrTooLong", name, err)
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	w := newWorld(t)
	for name, spoil := range map[string]func(*channel.Config){
		"no policy":       func(c *channel.Config) { c.Policy = nil },
		"no role":         func(c *channel.Config) { c.Role = "" },
		"unknown role":    func(c *channel.Config) { c.Role = "manager" },
		"no peers":        func(c *channel.Config) { c.PeerRoles = nil },
		"unknown peers":   func(c *channel.Config) { c.PeerRoles = []channel.Role{channel.Core, "manager"} },
		"no domain":       func(c *channel.Config) { c.Domain = [32]byte{} },
		"no attester":     func(c *channel.Config) { c.Attester = nil },
		"negative time":   func(c *channel.Config) { c.Timeout = -1 },
		"negative maxage": func(c *channel.Config) { c.MaxAge = -1 },
	} {
		cc, _ := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
		sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
		spoil(cc)
		c, s := handshake(t.Context(), cc, sc)
		if !errors.Is(c.err, channel.ErrConfig) || s.err == nil {
			t.Errorf("%s: got %v and %v, want ErrConfig and an error", name, c.err, s.err)
		}
	}
}
