// Package config holds one struct of settings per program. A setting is named
// once, in the table beside its struct, which loading, checking and --help
// share.
package config
