"""The key of TestKnownSealKey, made from docs/formats.md#domainkey-bundle-v1 alone."""
import hashlib
import hmac


def hkdf(secret, salt, info, n):
    prk = hmac.new(salt, secret, hashlib.sha256).digest()
    out, block, i = b"", b"", 1
    while len(out) < n:
        block = hmac.new(prk, block + info + bytes([i]), hashlib.sha256).digest()
        out, i = out + block, i + 1
    return out[:n]


keyid = bytes(range(32))
wrapped = b"\x00\x04ehsm" + b"\x01" + b"\x00\x00\x00\x02" + b"\x01\x02"
information = b"\x01" + wrapped  # of a platform without information of its own
info = b"ehsm/hsm-seal/v1\0" + b"\x01" + b"\x01\x02" + len(information).to_bytes(4, "big") + information
print(hkdf(b"\x11" * 32 + b"\x22" * 32, keyid, info, 32).hex())
