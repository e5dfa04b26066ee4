"""Writes v1.trail, a trail of format 1, without using the package it tests.

Needs the "cryptography" package. The keys are SHA-256 of the texts below.
"""
import struct
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

def key(text):
    return Ed25519PrivateKey.from_private_bytes(sha256(text).digest())

def public(k):
    return k.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

def text(s):
    return struct.pack(">H", len(s)) + s

domain_key, instance_key = key(b"domain key"), key(b"instance key")
domain = sha256(b"genesis").digest()
instance = bytes(range(0x10, 0x20))
tenant, cmk = bytes([0xAA] * 16), bytes([0xBB] * 16)

out, sequence = b"", 0
chain = sha256(b"ehsm/audit-first/v1\0" + domain + instance).digest()

def add(kind, fields):
    global out, chain, sequence
    sequence += 1
    entry = struct.pack(">BBQq", 1, kind, sequence, 1700000000000000 + sequence) + instance + fields
    chain = sha256(b"ehsm/audit-chain/v1\0" + chain + entry).digest()
    out += struct.pack(">I", len(entry)) + entry + chain

def checkpoint():
    message = b"ehsm/audit-checkpoint/v1\0" + domain + instance
    message += struct.pack(">Qq", sequence + 1, 1700000000000000 + sequence + 1) + chain
    add(3, chain + instance_key.sign(message))

pub = public(instance_key)
endorsement = domain_key.sign(b"ehsm/audit-endorsement/v1\0" + domain + instance + pub)
add(1, domain + pub + endorsement + text(b"sim"))
add(2, text(b"req-1") + tenant + text(b"Encrypt") + cmk + struct.pack(">IH", 3, 200) + text(b"ok"))
add(2, text(b"req-2") + tenant + text(b"DisableKey") + cmk + struct.pack(">IH", 0, 200) + text(b"ok"))
add(4, struct.pack(">Q", 3))
checkpoint()
add(2, text(b"") + bytes(16) + text(b"ListKey") + bytes(16) + struct.pack(">IH", 0, 401) + text(b"sign error"))
checkpoint()
Path(__file__).with_name("v1.trail").write_bytes(out)
print(len(out), "bytes, domain key", public(domain_key).hex())
