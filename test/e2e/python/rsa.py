"""RSA encryption under a PKCS#1 public key, by hand: a second opinion on what
the service decrypts. For tests only; nothing here hides its timing."""

import base64
import hashlib
import os


def _element(der, at, tag):
    if der[at] != tag:
        raise ValueError(f"DER tag {der[at]}, want {tag}")
    length, at = der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, at = int.from_bytes(der[at:at + size], "big"), at + size
    return der[at:at + length], at + length


def public_key(pem):
    """Modulus and exponent of a PEM of the kind RSA PUBLIC KEY."""
    lines = pem.strip().splitlines()
    if lines[0] != "-----BEGIN RSA PUBLIC KEY-----" or lines[-1] != "-----END RSA PUBLIC KEY-----" or not pem.endswith("\n"):
        raise ValueError(f"no PKCS#1 PEM: {pem!r}")
    sequence, _ = _element(base64.b64decode("".join(lines[1:-1]), validate=True), 0, 0x30)
    modulus, at = _element(sequence, 0, 0x02)
    exponent, _ = _element(sequence, at, 0x02)
    return int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big")


def _mgf1(seed, length):
    out = b"".join(hashlib.sha256(seed + i.to_bytes(4, "big")).digest() for i in range(-(-length // 32)))
    return out[:length]


def _xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def encrypt(pem, message, padding):
    """padding is EH_RSA_PKCS1 or EH_RSA_PKCS1_OAEP (SHA-256, empty label)."""
    n, e = public_key(pem)
    k = (n.bit_length() + 7) // 8
    if padding == "EH_RSA_PKCS1":
        filler = bytes(1 + b % 255 for b in os.urandom(k - len(message) - 3))
        block = b"\0\2" + filler + b"\0" + message
    else:
        data = hashlib.sha256(b"").digest() + bytes(k - len(message) - 66) + b"\1" + message
        seed = os.urandom(32)
        masked = _xor(data, _mgf1(seed, len(data)))
        block = b"\0" + _xor(seed, _mgf1(masked, 32)) + masked
    return pow(int.from_bytes(block, "big"), e, n).to_bytes(k, "big")
