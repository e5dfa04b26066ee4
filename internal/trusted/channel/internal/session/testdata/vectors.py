"""Known answers of the attested channel, made from docs/channel.md alone.

    python3 vectors.py > vectors.json
"""
import hashlib
import hmac
import json
import struct


def fill(n, first):
    return bytes((first + i) % 256 for i in range(n))


def L(b, size=4):
    return len(b).to_bytes(size, "big") + b


def frame(kind, manifest, payload):
    return bytes([kind]) + struct.pack(">Q", manifest) + L(payload)


def sha256(b):
    return hashlib.sha256(b).digest()


def digest(label, *parts):
    return sha256(label + b"".join(L(p) for p in parts))


def opening(side, role, domain, nonce, wants, target):
    return b"\x00\x01" + bytes([side]) + L(role, 2) + domain + nonce + bytes([wants]) + L(target)


def report_data(label, domain, role, exporter, nonce, spki, hpke, last=()):
    fields = [label, domain, role, exporter, nonce, spki, sha256(hpke), b"\x00\x01", *last]
    return hashlib.sha512(b"".join(L(f) for f in fields)).digest()


def acceptance(key, side, transcript):
    return hmac.new(key, b"ehsm/channel-accepted/v1\0" + bytes([side]) + transcript, hashlib.sha256).digest()


domain, exporter, spki = fill(32, 1), fill(32, 100), fill(32, 140)
nonce_c, nonce_s = fill(32, 10), fill(32, 60)
hpke_c, hpke_s = fill(1216, 3), fill(1216, 4)
quote_c, quote_s = fill(40, 5), fill(50, 6)
frames = [
    frame(1, 7, opening(1, b"dkeycache", domain, nonce_c, 1, b"")),
    frame(1, 8, opening(2, b"dkeyserver", domain, nonce_s, 0, fill(5, 0))),
    frame(2, 7, hpke_c + L(quote_c) + L(b"")),
    frame(2, 8, hpke_s + L(quote_s) + L(fill(9, 9))),
]
opened = digest(b"ehsm/channel-opening/v1\0", *frames[:2])
transcript = digest(b"ehsm/channel-transcript/v1\0", *frames)
answers = {
    "opening of the client": frames[0],
    "opening of the server": frames[1],
    "evidence of the client": sha256(frames[2]),
    "evidence of the server": sha256(frames[3]),
    "proof": frame(7, 9, L(quote_c) + L(fill(3, 1))),
    "challenge": frame(6, 9, nonce_c),
    "refused": frame(4, 9, b"\x03"),
    "goodbye": frame(8, 9, b""),
    "data": frame(5, 9, b"text"),
    "opening digest": opened,
    "transcript": transcript,
    "REPORTDATA, remote": report_data(b"ehsm/reportdata-channel/v1\0", domain, b"dkeycache", exporter, nonce_s, spki, hpke_c),
    "REPORTDATA, local": report_data(b"ehsm/reportdata-local/v1\0", domain, b"dkeycache", exporter, nonce_s, spki, hpke_c, [opened]),
    "acceptance of the client": acceptance(exporter, 1, transcript),
    "acceptance of the server": acceptance(exporter, 2, transcript),
    "info of a sealed message": b"ehsm/channel-seal/v1\0" + domain + b"\x01" + exporter + L(b"dk", 2),
    "label of evidence": b"EXPORTER-ehsm-attest/1 evidence client dkeycache",
    "label of evidence again": b"EXPORTER-ehsm-attest/1 again server dkeyserver",
    "label of acceptance": b"EXPORTER-ehsm-attest/1 accepted client",
    "label of sealing": b"EXPORTER-ehsm-local/1 seal server",
}
print(json.dumps({k: v.hex() for k, v in answers.items()}, indent=1))
