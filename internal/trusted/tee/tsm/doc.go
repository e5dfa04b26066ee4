// Package tsm is the platform of whole confidential guests: Intel TDX and AMD
// SEV-SNP, through the kernel's configfs-tsm reports. It is built with the tag
// tsm.
//
// It trusts the guest: kernel, boot chain and everything that runs as root in
// it. What a verifier can check of the guest is what was measured, so an image
// that lets the host in is as open as no TEE at all. It hides nothing by itself.
//
// # No seal key
//
// TDX has none, and configfs-tsm offers none of SEV-SNP. SealKey always returns
// tee.ErrNoSealKey: the DomainKey is fetched at each start.
//
// # Identity
//
// Nothing measures the program by itself, so Identity().Measurement is a hash of
// what is measured of the guest; see Open. Signer is zero, product and version
// are the program's own word. Verifiers read the evidence, not these.
package tsm
