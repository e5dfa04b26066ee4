"""Attested enrollment and sealed requests, written from docs/enrollment.md, docs/api.md and
docs/formats.md alone.

    enroll.py URL CAFILE DOMAIN MRENCLAVE   enrolls with the token on standard input, and
                                            checks what the documents say on the way
    enroll.py vectors                       prints known answers, always the same

URL ends with /ehsm. Of evidence it judges what a simulated platform has: signatures and
certificates up to a root that says it is simulated, what the quote binds, measurement and
debug. Collateral, which says whether a real machine is up to date, it leaves out.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
import uuid

import hpke

BINDING = "ehsm/reportdata-instance/v2"


def b64(data):
    return base64.b64encode(data).decode()


def unb64(text):
    return base64.b64decode(text, validate=True)


def sha256(data):
    return hashlib.sha256(data).digest()


def L(data):
    return len(data).to_bytes(4, "big") + data


# --- evidence: docs/formats.md#evidence-v1 and #reportdata ---

CURVE_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
CURVE_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
CURVE_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
CURVE_G = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
           0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)


def _plus(a, b):
    if a is None or b is None:
        return a or b
    if a[0] == b[0] and (a[1] + b[1]) % CURVE_P == 0:
        return None
    if a == b:
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, CURVE_P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, CURVE_P)
    x = (slope * slope - a[0] - b[0]) % CURVE_P
    return x, (slope * (a[0] - x) - a[1]) % CURVE_P


def _times(n, point):
    total = None
    while n:
        if n & 1:
            total = _plus(total, point)
        point, n = _plus(point, point), n >> 1
    return total


def p256_verifies(key, message, signature):
    """ECDSA over P-256 with SHA-256; key is x and y, signature r and s, 32 bytes each."""
    x, y = int.from_bytes(key[:32], "big"), int.from_bytes(key[32:], "big")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if (y * y - x**3 + 3 * x - CURVE_B) % CURVE_P or not 0 < r < CURVE_N or not 0 < s < CURVE_N:
        return False
    w = pow(s, -1, CURVE_N)
    point = _plus(_times(int.from_bytes(sha256(message), "big") * w % CURVE_N, CURVE_G), _times(r * w % CURVE_N, (x, y)))
    return point is not None and point[0] % CURVE_N == r


def openssl(*args, text=""):
    return subprocess.run(["openssl", *args], input=text.encode(), capture_output=True, check=True).stdout.decode()


def pck_key(chain):
    """The key of the first certificate of a chain, which leads to a simulated root."""
    certificates = re.findall("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", chain, re.S)
    with tempfile.TemporaryDirectory() as d:
        for name, texts in (("leaf", certificates[:1]), ("middle", certificates[1:-1]), ("root", certificates[-1:])):
            with open(f"{d}/{name}", "w") as f:
                f.write("\n".join(texts))
        openssl("verify", "-CAfile", f"{d}/root", "-untrusted", f"{d}/middle", f"{d}/leaf")
    for certificate in certificates:
        if "SIMULATION - NOT INTEL" not in openssl("x509", "-noout", "-subject", text=certificate):
            raise ValueError("a certificate is not of a simulated platform")
    return unb64("".join(openssl("x509", "-noout", "-pubkey", text=certificates[0]).splitlines()[1:-1]))[-64:]


def verify_quote(quote):
    """Measurement, debug and report data of an SGX quote of version 3 that is genuine."""
    signed, body = quote[:432], quote[48:432]
    if quote[:2] != b"\3\0" or int.from_bytes(quote[432:436], "little") != len(quote) - 436:
        raise ValueError("no SGX quote of version 3")
    signature, key, qe_report, qe_signature = quote[436:500], quote[500:564], quote[564:948], quote[948:1012]
    size = int.from_bytes(quote[1012:1014], "little")
    auth, rest = quote[1014:1014 + size], quote[1014 + size:]
    if rest[:2] != b"\5\0" or int.from_bytes(rest[2:6], "little") != len(rest) - 6:
        raise ValueError("quote without certificates")
    pck = pck_key(rest[6:].rstrip(b"\0").decode())
    if not p256_verifies(pck, qe_report, qe_signature) or qe_report[320:] != sha256(key + auth) + bytes(32):
        raise ValueError("the quoting enclave is not genuine")
    if not p256_verifies(key, signed, signature):
        raise ValueError("the quote is not genuine")
    return body[64:96], bool(body[48] & 2), body[320:384]


def verify_evidence(answer, challenge, domain, mrenclave):
    """Instance id and HPKE key of a core that is the wanted one."""
    if answer["challenge"] != base64.urlsafe_b64encode(challenge).decode().rstrip("="):
        raise ValueError("the answer is to another challenge")
    if answer["role"] != "core" or answer["reportDataBinding"] != BINDING:
        raise ValueError("evidence for another use")
    if answer["domainId"] != domain.hex():
        raise ValueError("service of another domain")
    evidence = unb64(answer["evidence"])
    if evidence[:2] != b"\1\1" or evidence[2:6] != len(evidence[6:]).to_bytes(4, "big"):
        raise ValueError("evidence is of another kind")
    measured, debug, report_data = verify_quote(evidence[6:])
    instance, key, reply_key = uuid.UUID(answer["instanceId"]).bytes, unb64(answer["hpkePublicKey"]), unb64(answer["replyKey"])
    bound = b"".join(L(x) for x in (BINDING.encode() + b"\0", domain, b"core", challenge, instance, key, reply_key))
    if not hmac.compare_digest(hashlib.sha512(bound).digest(), report_data):
        raise ValueError("the quote binds something else")
    if measured != mrenclave or debug:
        raise ValueError(f"program {measured.hex()}, debug {debug}, is not wanted")
    return instance, key


# --- enrollment: docs/enrollment.md ---

def parse_token(text):
    token = base64.urlsafe_b64decode(text.strip().removeprefix("ehsm-token-v1."))
    if len(token) != 48:
        raise ValueError("no enrollment token")
    return token


def token_hash(token):
    return sha256(b"ehsm/enroll-token/v1\0" + token)


class Enrollment:
    """Messages 3 and 4."""

    def __init__(self, domain, instance, key, token, label, own=None, random=os.urandom):
        self.domain, self.instance, self.own = domain, instance, own or hpke.PrivateKey()
        self.enc, context = hpke.sender(key, b"ehsm/enroll/v1\0" + domain + instance, random=random)
        self.ciphertext = context.seal(b"\1" + token + self.own.public + label.encode())
        self.secret = context.export(b"ehsm/enroll-reply/v1\0", 32)
        self.appid = uuid.UUID(bytes=context.export(b"ehsm/enroll-appid/v1\0", 16), version=4)

    def body(self):
        return {"instanceId": str(uuid.UUID(bytes=self.instance)), "enc": b64(self.enc), "ciphertext": b64(self.ciphertext)}

    def open(self, result):
        """Appid and API key."""
        info = b"ehsm/enroll-reply/v1\0" + self.domain + self.instance + self.secret
        text = hpke.recipient(self.own, unb64(result["enc"]), info).open(unb64(result["ciphertext"]))
        if text[0] != 1 or text[1:17] != self.appid.bytes:
            raise ValueError("the reply is of another enrollment")
        return str(self.appid), text[17:].decode()


# --- signed requests: docs/api.md; sealed ones: docs/formats.md#sealed-request-v1 ---

def canonical(members):
    """Of a flat object; leaves out what the first form leaves out."""
    def text(v):
        return canonical(v) if isinstance(v, dict) else str(v)
    return "&".join(f"{k}={text(v)}" for k, v in sorted(members.items()) if v not in ("", 0, None, False))


def padded(content):
    size = 512
    while size < len(content) + 4:
        size *= 2
    return (L(content) + bytes(size))[:size]


def aead_key(secret, salt, label):
    return hpke.expand(hpke.extract(salt, secret), label, 32)


class Sealed:
    """A client of one core instance, whose requests nobody on the way reads."""

    def __init__(self, send, domain, key, appid, api_key):
        self.send, self.appid, self.api_key = send, appid, api_key.encode()
        self.key_id = sha256(b"ehsm/sealed-key/v1\0" + key)[:16].hex()
        self.enc, context = hpke.sender(key, b"ehsm/sealed/v1\0" + domain, hpke.EXPORT_ONLY)
        self.secret = context.export(b"ehsm/sealed-secret/v1\0", 32)

    def signed(self, action, payload):
        request = {"appid": self.appid, "timestamp": str(int(time.time() * 1000)), "nonce": os.urandom(8).hex(), "payload": {"action": action, **payload}}
        mac = hmac.digest(self.api_key, canonical(request).encode(), "sha256")
        return {**request, "sign": b64(mac)}, mac

    def message(self, action, request, names):
        outer = b"ehsm/sealed-outer/v1\0" + b"".join(L(x.encode()) for x in (action, self.appid, self.key_id, *sum(names, ())))
        nonce = os.urandom(32)
        key = aead_key(self.secret, nonce, b"ehsm/sealed-request/v1\0")
        message = b"\1" + self.enc + nonce + hpke.gcm_seal(key, bytes(12), padded(json.dumps(request).encode()), outer)
        return nonce, message

    def call(self, action, payload):
        request, mac = self.signed(action, payload)
        names = [(n, payload[n]) for n in ("keyid",) if n in payload]
        nonce, message = self.message(action, request, names)
        body = {"sealed": b64(message), "sealedKey": self.key_id, "appid": self.appid}
        reply = self.send(action, {**body, "payload": dict(names)} if names else body)
        same((reply["code"], reply["message"]), (200, "sealed"))
        sealed = unb64(reply["result"]["sealed"])
        if sealed[0] != 1:
            raise ValueError("sealed reply of another format")
        key = aead_key(self.secret, sealed[1:33] + sha256(message), b"ehsm/sealed-reply/v1\0")
        text = hpke.gcm_open(key, bytes(12), sealed[33:])
        same(len(text) & (len(text) - 1), 0)
        text = text[4:4 + int.from_bytes(text[:4], "big")]
        sign, body = text[1:1 + text[0]], text[1 + text[0]:]
        reply_key = hpke.expand(hpke.extract(b"", self.api_key), b"ehsm-reply/v1", 32)
        want = hmac.digest(reply_key, mac + bytes([len(action)]) + action.encode() + body, "sha256")
        same(sign.decode(), b64(want))
        answer = json.loads(body)
        same(answer["code"], 200)
        return answer["result"]


# --- the program ---

def same(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def run(url, ca_file, domain, mrenclave, token):
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca_file)))

    def send(action, body=None, **query):
        request = urllib.request.Request(f"{url}?{urllib.parse.urlencode({'Action': action, **query})}", data=body and json.dumps(body, separators=(",", ":")).encode())
        with opener.open(request, timeout=30) as reply:
            return json.load(reply)

    def refused(code, message, body):
        reply = send("EnrollFinish", body)
        same((reply["code"], reply["message"], reply["result"]), (code, message, {}))

    challenge = os.urandom(32)
    answer = send("GetEvidence", challenge=base64.urlsafe_b64encode(challenge).decode().rstrip("="))["result"]
    instance, key = verify_evidence(answer, challenge, domain, mrenclave)
    for name, wrong in (("challenge", (os.urandom(32), domain, mrenclave)), ("domain", (challenge, bytes(32), mrenclave)), ("program", (challenge, domain, bytes(32)))):
        try:
            verify_evidence(answer, *wrong)
        except ValueError:
            continue
        raise AssertionError(f"evidence verifies with another {name}")

    e = Enrollment(domain, instance, key, token, "python")
    flip = lambda text: b64(bytes([unb64(text)[0] ^ 1]) + unb64(text)[1:])
    failed = "enroll user info failed"
    refused(400, failed, {**e.body(), "ciphertext": flip(e.body()["ciphertext"])})
    refused(400, failed, {**e.body(), "enc": flip(e.body()["enc"])})
    refused(400, failed, Enrollment(bytes(32), instance, key, token, "").body())
    refused(400, failed, Enrollment(domain, instance, key, token[:16] + bytes(32), "").body())
    refused(400, failed, Enrollment(domain, instance, key, token, "x" * 65).body())
    refused(421, f"Misdirected, The instance is {uuid.UUID(bytes=instance)}", Enrollment(domain, bytes(16), key, token, "").body())
    appid, api_key = e.open(send("EnrollFinish", e.body())["result"])
    again = send("EnrollFinish", e.body())["result"]
    same(e.open(again), (appid, api_key))
    refused(400, failed, Enrollment(domain, instance, key, token, "").body())  # it was used

    c = Sealed(send, domain, key, appid, api_key)
    keyid = c.call("CreateKey", {"keyspec": "EH_AES_GCM_256", "origin": "EH_INTERNAL_KEY", "keyusage": "EH_KEYUSAGE_ENCRYPT_DECRYPT"})["keyid"]
    ciphertext = c.call("Encrypt", {"keyid": keyid, "plaintext": b64(b"attack at dawn")})["ciphertext"]
    same(c.call("Decrypt", {"keyid": keyid, "ciphertext": ciphertext})["plaintext"], b64(b"attack at dawn"))

    request, _ = c.signed("Encrypt", {"keyid": keyid, "plaintext": "AAAA"})
    _, message = c.message("Encrypt", request, [("keyid", keyid)])
    outer = {"sealed": b64(message), "sealedKey": c.key_id, "appid": appid, "payload": {"keyid": keyid}}
    reply = send("Decrypt", outer)
    same((reply["code"], reply["message"]), (400, "sealed request error"))
    reply = send("Encrypt", {**outer, "payload": {"keyid": appid}})
    same((reply["code"], reply["message"]), (400, "sealed request error"))
    reply = send("Encrypt", {**outer, "sealedKey": "00" * 16})
    same((reply["code"], reply["message"], reply["result"]), (400, "sealed key unknown", {"sealedKey": c.key_id}))
    print(appid)


def vectors():
    """Known answers: the core's key and the client's are of the seeds 1... and 2..."""
    def fill(first):
        return bytes((first + i) % 256 for i in range(32))

    def draws(first):
        parts = iter([fill(first), fill(first + 40)])
        return lambda n: next(parts)

    core, own = hpke.PrivateKey(fill(1)), hpke.PrivateKey(fill(2))
    domain, instance = fill(9), uuid.UUID("86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c")
    token = uuid.UUID("aac3e45a-d3dc-4791-89b6-4ada0e38e6ef").bytes + fill(100)
    e = Enrollment(domain, instance.bytes, core.public, token, "laptop", own, draws(50))
    api_key = "D3nK2Vq90QrFkHGRZ3dBAyFEfPTtLfQy"
    enc, s = hpke.sender(own.public, b"ehsm/enroll-reply/v1\0" + domain + instance.bytes + e.secret, random=draws(150))
    result = {"instanceId": str(instance), "enc": b64(enc), "ciphertext": b64(s.seal(b"\1" + e.appid.bytes + api_key.encode()))}
    same(e.open(result), (str(e.appid), api_key))
    return {
        "token": "ehsm-token-v1." + base64.urlsafe_b64encode(token).decode(), "tokenId": str(uuid.UUID(bytes=token[:16])), "tokenHash": token_hash(token).hex(),
        "coreSeed": fill(1).hex(), "clientSeed": fill(2).hex(), "domain": domain.hex(), "label": "laptop",
        "request": e.body(), "secret": e.secret.hex(), "appid": str(e.appid), "apikey": api_key, "result": result,
    }


if __name__ == "__main__":
    hpke.check()
    if sys.argv[1:] == ["vectors"]:
        print(json.dumps(vectors(), indent=1))
    else:
        run(sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3]), bytes.fromhex(sys.argv[4]), parse_token(sys.stdin.read()))
