//go:build !pkcs11

package main

import (
	"context"
	"io"

	"github.com/ehsm-kms/ehsm/internal/config"
)

func initKey(config.HSM, string, io.Writer) error { return errBuild }

func check(config.HSM, io.Writer) error { return errBuild }

func serve(context.Context, config.HSM, io.Writer) error { return errBuild }
