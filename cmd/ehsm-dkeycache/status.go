package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/provision"
)

// statusTime is how long the dkeycache that runs has to answer.
const statusTime = 5 * time.Second

// status asks the dkeycache that runs on this machine how far it is.
func status(ctx context.Context, getenv func(string) string, stdout, stderr io.Writer) int {
	s, err := askStatus(ctx, getenv)
	if err != nil {
		fmt.Fprintf(stderr, "ehsm-dkeycache: %v\n", err)
		return 1
	}
	fmt.Fprint(stdout, s.Readiness)
	if s.Manifest > 0 {
		fmt.Fprintf(stdout, ", manifest %d", s.Manifest)
	}
	if s.Readiness != provision.Ready {
		fmt.Fprintln(stdout)
		return 1
	}
	fmt.Fprintf(stdout, ", DomainKey version %d, lease %v\n", s.DomainKey, s.Lease)
	return 0
}

func askStatus(ctx context.Context, getenv func(string) string) (provision.State, error) {
	network, address, err := config.DKeyCacheAddress(getenv)
	if err != nil {
		return provision.State{}, fmt.Errorf("EHSM_DKEYCACHE_LISTEN: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return provision.State{}, err
	}
	return provision.AskState(ctx, conn)
}
