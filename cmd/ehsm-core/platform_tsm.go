//go:build tsm

package main

import (
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/tsm"
)

func openTSM() (tee.Platform, error) {
	client, err := tsm.Client()
	if err != nil {
		return nil, err
	}
	return tsm.Open(client, tee.ProductCore, svn)
}
