// Package ego is the platform of SGX enclaves that run under EGo. The tag ego
// builds it with EGo's package and cgo; without the tag the driver is there for
// its tests, and Open is not.
//
// It trusts EGo's run-time, which is in the enclave and measured, and the
// processor. It hides the processor's keys from all but the seal keys it derives.
//
// # Seal keys
//
// Two keys of EGETKEY, of 128 bits each, are derived into one. The request
// stores KEYID, ISVSVN and CPUSVN of the time of sealing, so that updates of
// microcode and program open what was sealed before, and older ones do not open
// what newer ones sealed. The host can change what is stored, so nothing else of
// the processor's key request is: policy and masks are constants here. With
// another mask a debug enclave, and with another policy anybody's, could have the
// same key.
package ego
