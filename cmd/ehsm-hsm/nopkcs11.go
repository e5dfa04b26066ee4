//go:build !pkcs11

package main

import (
	"context"
	"errors"
	"io"

	"github.com/ehsm-kms/ehsm/internal/config"
)

// errBuild is returned by a program that cannot talk to an HSM.
var errBuild = errors.New("built without PKCS#11; build it with CGO_ENABLED=1 go build -tags pkcs11 ./cmd/ehsm-hsm, which takes a C compiler")

func initKey(config.HSM, string, io.Writer) error { return errBuild }

func check(config.HSM, io.Writer) error { return errBuild }

func serve(context.Context, config.HSM, io.Writer) error { return errBuild }
