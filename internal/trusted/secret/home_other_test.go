//go:build !linux

package secret

import "testing"

func memories(testing.TB) []Memory { return []Memory{Heap} }
