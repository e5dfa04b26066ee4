module github.com/ehsm-kms/ehsm

go 1.26.4

require (
	github.com/c2sp/wycheproof v0.0.0-20260902155932-3fa63dd0344a // indirect
	github.com/decred/dcrd/dcrec/secp256k1/v4 v4.4.1 // indirect
	github.com/emmansun/gmsm v0.44.0 // indirect
	golang.org/x/crypto v0.53.0 // indirect
)
