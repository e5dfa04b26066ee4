package main

import (
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
)

// released copies the files of a domain whose custodians are in the script: a backup,
// the genesis, dave's share, and his answer to a restoration.
func released(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: released DIR")
	}
	ts.Check(os.CopyFS(ts.MkAbs(args[0]), os.DirFS(filepath.Join("..", "..", "internal", "wire", "escrow", "testdata", "v1"))))
}
