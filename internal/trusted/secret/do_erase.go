//go:build goexperiment.runtimesecret && linux && (amd64 || arm64)

package secret

import runtimesecret "runtime/secret"

// Erases tells whether Do erases what its function leaves behind. It needs a
// build with GOEXPERIMENT=runtimesecret.
const Erases = true

// Do calls f, and erases the registers and the stack that f has used, and what f
// has allocated as soon as the garbage collector finds it unreachable. Where
// Erases is false, it only calls f. Values that must outlive f go into memory
// from outside. It costs about a microsecond and more for every allocation, so it
// is for what happens once per key or start, not once per request.
func Do(f func()) { runtimesecret.Do(f) }
