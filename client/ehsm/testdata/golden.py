#!/usr/bin/env python3
"""Writes the golden envelopes beside this file, from docs/formats.md and with
the cryptography package, which shares no code with the project.

Released files are never written again; a new format gets new files."""
import hashlib
import hmac
import os
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY = bytes(range(32))
SALT = bytes(range(100, 132))
KEY_ID = b"aac3e45a-d3dc-4791-89b6-4ada0e38e6ef"
WRAPPED = b"wrapped data key"
CHUNK = 65536


def derive(info):
    return HKDF(SHA256(), 32, SALT, info).derive(KEY)


def envelope(plain, aad):
    head = b"\xe1ehsmenv" + bytes([16]) + SALT + KEY_ID + struct.pack(">H", len(WRAPPED)) + WRAPPED
    mac = hmac.new(derive(b"ehsm-envelope/v1 header"), head + aad, hashlib.sha256).digest()
    gcm = AESGCM(derive(b"ehsm-envelope/v1 chunks"))
    out = head + mac
    chunks = [plain[i:i + CHUNK] for i in range(0, len(plain), CHUNK)] or [b""]
    for i, chunk in enumerate(chunks):
        nonce = i.to_bytes(11, "big") + bytes([i == len(chunks) - 1])
        out += gcm.encrypt(nonce, chunk, mac)
    return out


def pattern(n):
    return bytes(i % 251 for i in range(n))


here = os.path.dirname(os.path.abspath(__file__))
for name, n, aad in [("empty", 0, b""), ("small", 5, b"aad"), ("full-chunk", CHUNK, b""), ("two-chunks", CHUNK + 1, b"aad")]:
    with open(os.path.join(here, name + ".env"), "xb") as f:
        f.write(envelope(pattern(n), aad))
print("wrap aad of 'aad':", hashlib.sha256(b"ehsm-envelope/v1 wrap\0aad").hexdigest())
print("wrap aad of '':", hashlib.sha256(b"ehsm-envelope/v1 wrap\0").hexdigest())
