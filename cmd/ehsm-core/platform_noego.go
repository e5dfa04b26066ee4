//go:build !ego

package main

import "github.com/ehsm-kms/ehsm/internal/trusted/tee"

func openEGo() (tee.Platform, error) { return notBuilt("ego") }
