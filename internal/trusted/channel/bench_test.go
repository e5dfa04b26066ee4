package channel_test

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// cpu is the time that the process has computed.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkProvisioning makes a channel over loopback TCP with evidence of both
// sides, and hands a key over: what a dkeyserver does for one that starts, both
// ends in one process. cpu-ns is the time of both.
func BenchmarkProvisioning(b *testing.B) {
	w := newWorld(b)
	cc, _ := config(b, w, w.one, channel.DKeyCache, channel.DKeyServer)
	sc, _ := config(b, w, w.two, channel.DKeyServer, channel.DKeyCache)
	sc.Limit = new(channel.Limit)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	key := secret.Copy(make([]byte, 32))
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			go provision(raw, sc, key)
		}
	}()
	before := cpu(b)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if err := fetch(l.Addr().String(), cc); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}

func provision(raw net.Conn, cfg *channel.Config, key secret.Bytes) {
	conn, err := channel.Server(context.Background(), raw, cfg)
	if err != nil {
		return
	}
	defer conn.Close()
	if sealed, err := conn.Seal("key", key); err == nil && conn.Send(context.Background(), sealed) == nil {
		conn.Receive(context.Background())
	}
}

func fetch(addr string, cfg *channel.Config) error {
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	conn, err := channel.Client(context.Background(), raw, cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	sealed, err := conn.Receive(context.Background())
	if err != nil {
		return err
	}
	_, err = conn.Open("key", sealed)
	return err
}

func BenchmarkMessage(b *testing.B) {
	w := newWorld(b)
	cc, _ := config(b, w, w.one, channel.DKeyCache, channel.DKeyServer)
	sc, _ := config(b, w, w.two, channel.DKeyServer, channel.DKeyCache)
	client, server := join(b, cc, sc)
	go func() {
		for {
			m, err := server.Receive(context.Background())
			if err != nil || server.Send(context.Background(), m) != nil {
				return
			}
		}
	}()
	m := make([]byte, 1024)
	for b.Loop() {
		if err := client.Send(b.Context(), m); err != nil {
			b.Fatal(err)
		}
		if _, err := client.Receive(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
