package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/metrics"
	"github.com/ehsm-kms/ehsm/internal/host/relay"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// TestCompromised asks for what is to be replaced where a manager serves its metrics.
func TestCompromised(t *testing.T) {
	key := relay.Exposed{Kind: "key", Tenant: wire.UUID{1}, ID: wire.UUID{2}, Made: 3}
	line := "key\ttenant 01000000-0000-0000-0000-000000000000\tid 02000000-0000-0000-0000-000000000000\tmade under version 3\n"
	tests := []struct {
		name, method string
		list         exposure
		code         int
		want         string
	}{
		{"no leak", http.MethodGet, func(context.Context, func(relay.Exposed) error) error {
			return fmt.Errorf("count: %w", relay.ErrNoLeak)
		}, 200, "no version of the DomainKey is marked as compromised\n"},
		{"nothing left", http.MethodGet, func(context.Context, func(relay.Exposed) error) error { return nil }, 200, "end\n"},
		{"two left", http.MethodGet, func(_ context.Context, each func(relay.Exposed) error) error {
			return errors.Join(each(key), each(key))
		}, 200, line + line + "end\n"},
		{"broken off", http.MethodGet, func(_ context.Context, each func(relay.Exposed) error) error {
			return errors.Join(each(key), errors.New("slice 3: the database is away"))
		}, 200, line + "broken off: slice 3: the database is away\n"},
		{"more than is buffered", http.MethodGet, func(_ context.Context, each func(relay.Exposed) error) error {
			for range 1000 {
				if err := each(key); err != nil {
					return err
				}
			}
			return nil
		}, 200, strings.Repeat(line, 1000) + "end\n"},
		{"another method", http.MethodPost, func(context.Context, func(relay.Exposed) error) error {
			t.Error("a POST has the store read")
			return nil
		}, 405, "Method Not Allowed\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, serveList(t, tt.list)+"/compromised", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != tt.code || string(body) != tt.want {
				t.Errorf("got %d %.300q, %v, want %d %.300q", resp.StatusCode, body, err, tt.code, tt.want)
			}
		})
	}
}

// TestCompromisedUnread has who asked go away: the store is not read on for nobody.
func TestCompromisedUnread(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	address := serveList(t, func(ctx context.Context, _ func(relay.Exposed) error) error {
		close(began)
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	})
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-began
		leave()
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/compromised", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Error("a list that was not made was answered")
	}
	<-ended
}

// serveList serves a list until the test ends, and returns where.
func serveList(t *testing.T, list exposure) string {
	t.Helper()
	var said strings.Builder
	serve, err := listenMetrics("127.0.0.1:0", metrics.New(metrics.Sources{}), list, &said)
	if err != nil {
		t.Fatal(err)
	}
	go serve(t.Context())
	return regexp.MustCompile(`http://[^/]+`).FindString(said.String())
}
