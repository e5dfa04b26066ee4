//go:build ego

package main

import (
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/ego"
)

func openEGo() (tee.Platform, error) { return ego.Open(tee.ProductCore, svn) }
