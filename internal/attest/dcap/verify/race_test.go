//go:build race

package verify_test

const flipStride = 16
