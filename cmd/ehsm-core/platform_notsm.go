//go:build !tsm

package main

import "github.com/ehsm-kms/ehsm/internal/trusted/tee"

func openTSM() (tee.Platform, error) { return notBuilt("tsm") }
