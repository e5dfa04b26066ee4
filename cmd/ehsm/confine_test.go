package main

import (
	"context"
	"io"
)

// run executes one command line as main does, in the process of the tests, which
// ehsm dev must leave as it is. Scripts run the program itself.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	return (&app{getenv: getenv, stdin: stdin, stdout: stdout, stderr: stderr}).run(ctx, args)
}
