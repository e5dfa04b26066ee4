// Package dcapdiff holds a test only: it compares our verification of SGX quotes
// with that of another project, on genuine quotes, on changes of them, and on
// those of simulated fleets. Ours must never accept what the other refuses.
//
// The other verifier needs Node.js and is fetched by run.sh, so the test has a
// build tag and is no part of the gate.
package dcapdiff
