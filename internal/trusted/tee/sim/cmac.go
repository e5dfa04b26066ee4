package sim

import (
	"crypto/aes"
	"crypto/subtle"
)

// cmac is AES-128-CMAC of RFC 4493, which EREPORT authenticates reports with.
func cmac(key [16]byte, message []byte) (tag [aes.BlockSize]byte) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has the size of one
	}
	var l [aes.BlockSize]byte
	block.Encrypt(l[:], l[:])
	k1 := double(l)
	for len(message) > aes.BlockSize {
		subtle.XORBytes(tag[:], tag[:], message[:aes.BlockSize])
		block.Encrypt(tag[:], tag[:])
		message = message[aes.BlockSize:]
	}
	var last [aes.BlockSize]byte
	mask := k1
	if n := copy(last[:], message); n < aes.BlockSize {
		last[n] = 0x80
		mask = double(k1)
	}
	subtle.XORBytes(last[:], last[:], mask[:])
	subtle.XORBytes(tag[:], tag[:], last[:])
	block.Encrypt(tag[:], tag[:])
	return tag
}

// double multiplies by x in GF(2^128), in constant time.
func double(b [aes.BlockSize]byte) (out [aes.BlockSize]byte) {
	var carry byte
	for i := aes.BlockSize - 1; i >= 0; i-- {
		out[i] = b[i]<<1 | carry
		carry = b[i] >> 7
	}
	out[aes.BlockSize-1] ^= 0x87 & -carry
	return out
}
