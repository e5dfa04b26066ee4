//go:build pkcs11

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/host/hsm"
)

func initKey(settings config.HSM, label string, stdout io.Writer) error {
	t := hsm.NewToken(settings)
	defer t.Close()
	if err := t.InitKey(label); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "the token %s has the key %s, AES-256, for %s\n", settings.Token, label, settings.Mechanism)
	return nil
}

func check(settings config.HSM, stdout io.Writer) error {
	t := hsm.NewToken(settings)
	defer t.Close()
	if err := t.Check(); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "the token %s has %s, and the first wraps and unwraps with %s\n", settings.Token, strings.Join(settings.Keys, ", "), settings.Mechanism)
	return nil
}

// serve serves, also where the token is not there yet.
func serve(ctx context.Context, settings config.HSM, stderr io.Writer) error {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	t := hsm.NewToken(settings)
	if err := t.Check(); err != nil {
		log.Error("the HSM cannot be used as it is", "why", err.Error())
	}
	ln, err := hsm.Listen(settings.Listen)
	if err != nil {
		return err
	}
	defer ln.Close()
	fmt.Fprintf(stderr, "ehsm-hsm: serves token %s on %s\n", settings.Token, settings.Listen)
	s := &hsm.Server{HSM: t, Log: log, Timeout: settings.Timeout, Connections: settings.Connections}
	return s.Serve(ctx, ln)
}
