"""Known answers of sealed requests, made from docs/formats.md#sealed-request-v1 and
RFC 9180 alone. Needs the Python package cryptography with ML-KEM, whose encapsulation
is random: each run prints others.

    python3 vectors.py > vectors.json
"""
import base64
import hashlib
import hmac
import json

from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def fill(n, first):
    return bytes((first + i) % 256 for i in range(n))


def L(s):
    return len(s).to_bytes(4, "big") + s


def sha256(b):
    return hashlib.sha256(b).digest()


def extract(salt, ikm):
    return hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()


def expand(prk, info, n):
    out, block, i = b"", b"", 1
    while len(out) < n:
        block = hmac.new(prk, block + info + bytes([i]), hashlib.sha256).digest()
        out, i = out + block, i + 1
    return out[:n]


# RFC 9180, base mode: KEM 0x647a (MLKEM768-X25519), KDF 1 (HKDF-SHA-256), AEAD
# 0xffff (export only).
SUITE = b"HPKE" + bytes.fromhex("647a0001ffff")


def labeled_extract(salt, label, ikm):
    return extract(salt, b"HPKE-v1" + SUITE + label + ikm)


def labeled_expand(prk, label, info, n):
    return expand(prk, n.to_bytes(2, "big") + b"HPKE-v1" + SUITE + label + info, n)


def exported(shared, info, context):
    key_context = b"\0" + labeled_extract(b"", b"psk_id_hash", b"") + labeled_extract(b"", b"info_hash", info)
    secret = labeled_extract(shared, b"secret", b"")
    exporter = labeled_expand(secret, b"exp", key_context, 32)
    return labeled_expand(exporter, b"sec", context, 32)


# MLKEM768-X25519 (X-Wing).
def key_pair(seed):
    expanded = hashlib.shake_256(seed).digest(96)
    m = mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    x = x25519.X25519PrivateKey.from_private_bytes(expanded[64:])
    return m, x, m.public_key().public_bytes_raw() + x.public_key().public_bytes_raw()


def encapsulate(public):
    m_shared, m_ct = mlkem.MLKEM768PublicKey.from_public_bytes(public[:1184]).encapsulate()
    e = x25519.X25519PrivateKey.from_private_bytes(fill(32, 77))
    ct = e.public_key().public_bytes_raw()
    x_shared = e.exchange(x25519.X25519PublicKey.from_public_bytes(public[1184:]))
    return m_ct + ct, hashlib.sha3_256(m_shared + x_shared + ct + public[1184:] + b"\\.//^\\").digest()


def padded(content):
    n, size = len(content) + 4, 512
    while size < n and size < 65536:
        size *= 2
    if n > 65536:
        size = (n + 65535) // 65536 * 65536
    return L(content) + bytes(size - n)


def seal(secret, salt, label, content, aad):
    key = expand(extract(salt, secret), label, 32)
    return AESGCM(key).encrypt(bytes(12), padded(content), aad)


seed, domain = fill(32, 1), fill(32, 9)
_, _, public = key_pair(seed)
encapsulated, shared = encapsulate(public)
secret = exported(shared, b"ehsm/sealed/v1\0" + domain, b"ehsm/sealed-secret/v1\0")
key_id = sha256(b"ehsm/sealed-key/v1\0" + public)[:16].hex()

appid = "86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c"
keyid = "aac3e45a-d3dc-4791-89b6-4ada0e38e6ef"
tenant = bytes.fromhex(appid.replace("-", ""))
h = sha256(b"ehsm/secret-name/v1\0" + tenant + b"a name").hex()
secret_id = "-".join([h[:8], h[8:12], h[12:16], h[16:20], h[20:32]])
names = [("keyid", keyid), ("secretId", secret_id)]
action = "Encrypt"
request = json.dumps({"appid": appid, "payload": {"keyid": keyid, "secretName": "a name", "plaintext": "aGVsbG8="}}).encode()
bound = b"ehsm/sealed-outer/v1\0" + b"".join(L(s.encode()) for s in [action, appid, key_id, *[t for n in names for t in n]])

nonce, reply_nonce = fill(32, 100), fill(32, 150)
message = b"\1" + encapsulated + nonce + seal(secret, nonce, b"ehsm/sealed-request/v1\0", request, bound)
body = '{"sealed":"%s","sealedKey":"%s","appid":"%s","payload":{%s}}' % (
    base64.b64encode(message).decode(), key_id, appid, ",".join('"%s":"%s"' % n for n in names))
sign, reply = "NUMQ7Q5tNQXBQYaC0TOp9uLH5+x0J2rjyJx3rAATHc4=", b'{"code":200,"message":"success!","result":{}}'
reply_message = b"\1" + reply_nonce + seal(
    secret, reply_nonce + sha256(message), b"ehsm/sealed-reply/v1\0", bytes([len(sign)]) + sign.encode() + reply, b"")
large = seal(secret, nonce, b"ehsm/sealed-request/v1\0", bytes(70000), bound)

print(json.dumps({
    "seed": seed.hex(), "domain": domain.hex(), "public key": sha256(public).hex(), "key id": key_id,
    "encapsulated": encapsulated.hex(), "secret": secret.hex(), "nonce": nonce.hex(), "reply nonce": reply_nonce.hex(),
    "request": request.decode(), "message": message.hex(), "body": body,
    "sign": sign, "reply": reply.decode(), "reply message": reply_message.hex(),
    "large": sha256(large).hex(),
}, indent=1))
