package main

import (
	"io"

	"github.com/schollz/progressbar/v3"
)

const progressFrom = 16 << 20 // bytes; below it is done before anyone looks

// progress shows on a terminal how much of a large input was read.
func (a *app) progress(what string, r io.Reader, size int64) io.Reader {
	if size < progressFrom || !isTerminal(a.stderr) {
		return r
	}
	bar := progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(a.stderr),
		progressbar.OptionSetDescription("ehsm: "+what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionClearOnFinish(),
	)
	return io.TeeReader(r, bar)
}
