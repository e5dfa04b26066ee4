"""Drives every action of the native API with the client beside it. Usage: drive.py URL CAFILE [GROUP...]

URL ends with /ehsm. Each group of GROUPS, or each that is named, runs as a
tenant of its own.
"""

import base64
import dataclasses
import hashlib
import hmac
import os
import string
import struct
import sys
import time

import rsa
from client import Ciphertexts, Client, Plaintexts, RefusedError, Signatures, Verdicts

INTERNAL, EXTERNAL = "EH_INTERNAL_KEY", "EH_EXTERNAL_KEY"
ENCRYPT, SIGN = "EH_KEYUSAGE_ENCRYPT_DECRYPT", "EH_KEYUSAGE_SIGN_VERIFY"
UNKNOWN = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
RSA = ["EH_RSA_2048", "EH_RSA_3072", "EH_RSA_4096"]
EC = ["EH_EC_P224", "EH_EC_P256", "EH_EC_P256K", "EH_EC_P384", "EH_EC_P521"]


def b64(data):
    return base64.b64encode(data).decode()


def same(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def refused(code, message, call, *args, **kwargs):
    """Expects a refusal. A message of None is any."""
    try:
        got = call(*args, **kwargs)
    except RefusedError as e:
        same((e.code, e.message if message is not None else None), (code, message))
    else:
        raise AssertionError(f"got {got!r}, want a refusal: {message}")


def service(c):
    version = c.get_version()
    assert version.version
    enrolled = c.enroll()
    same((len(enrolled.appid), len(enrolled.apikey)), (36, 32))
    refused(400, "sign error", Client(c.url, c.cafile, enrolled.appid, c.apikey).list_keys)
    refused(404, "API Not Found", c.call, "Nonsense")


def keys(c):
    same(c.list_keys(), [])
    key = c.create_key("EH_AES_GCM_128", INTERNAL, ENCRYPT)
    [item] = c.list_keys()
    same((item.keyid, item.keyspec, item.keyState, item.alias, item.expireTime), (key, "EH_AES_GCM_128", 1, "", 253402300799000))
    assert abs(item.creationDate - time.time() * 1000) < 60000
    c.disable_key(key)
    same(c.list_keys()[0].keyState, 0)
    refused(400, "keyid is disabled", c.encrypt, key, "AAAA")
    c.enable_key(key)
    c.encrypt(key, "AAAA")
    for action in (c.enable_key, c.disable_key):
        refused(400, "not find this keyid", action, UNKNOWN)
    c.delete_key(key)
    c.delete_key(key)
    refused(400, "keyid error", c.encrypt, key, "AAAA")
    for spec in ("EH_AES_GCM_192", "EH_AES_GCM_256"):
        c.create_key(spec, INTERNAL, ENCRYPT)
    same(len(c.list_keys()), 2)
    c.delete_all_keys()
    same(c.list_keys(), [])
    refused(500, "Server exception.", c.create_key, "EH_AES_GCM_128", INTERNAL, SIGN)
    refused(400, "Parameter invalid, The keyspec type is incorrect.", c.create_key, "EH_RSA_3071", INTERNAL, ENCRYPT)


def round_trip(c, key, authenticates_aad=True):
    for size in (1, 16, 6144):
        for aad in (None, "", b64(os.urandom(16)), b64(os.urandom(6144))):
            plain = b64(os.urandom(size))
            sealed = c.encrypt(key, plain, aad)
            same(c.decrypt(key, sealed, aad), plain)
            if aad and authenticates_aad:
                refused(400, "Decryption failed, Please confirm that your parameters are correct.", c.decrypt, key, sealed, "AAAA")
    same(c.encrypt(key, "AAAA") != c.encrypt(key, "AAAA"), True)


def data_keys(c, key):
    for size in (1, 16, 48, 1024):
        for aad in (None, "", "YWFk"):
            data = c.generate_data_key(key, size, aad)
            same(len(base64.b64decode(data.plaintext, validate=True)), size)
            same(c.decrypt(key, data.ciphertext, aad), data.plaintext)
            sealed = c.generate_data_key_without_plaintext(key, size, aad)
            same(len(base64.b64decode(c.decrypt(key, sealed, aad), validate=True)), size)
    for size, limit in ((0, "greater than or equal to 1."), (1025, "less than or equal to 1024.")):
        refused(400, f"Parameter invalid, The keylen value must be {limit}", c.generate_data_key, key, size)
    refused(400, "Parameter invalid, The keylen must be of integer type.", c.generate_data_key, key, "48")


def symmetric(c):
    for spec in ("EH_AES_GCM_128", "EH_AES_GCM_192", "EH_AES_GCM_256"):
        key = c.create_key(spec, INTERNAL, ENCRYPT)
        round_trip(c, key)
        data_keys(c, key)


def sm4(c):
    for spec in ("EH_SM4_CTR", "EH_SM4_CBC"):
        key = c.create_key(spec, INTERNAL, ENCRYPT)
        round_trip(c, key, authenticates_aad=False)
        data_keys(c, key)


def asymmetric(c):
    for spec in RSA:
        key = c.create_key(spec, INTERNAL, ENCRYPT)
        public = c.get_public_key(key)
        same(public.keyid, key)
        modulus, _ = rsa.public_key(public.pubkey)
        same(modulus.bit_length(), int(spec[-4:]))
        for padding, overhead in (("EH_RSA_PKCS1", 11), ("EH_RSA_PKCS1_OAEP", 66)):
            largest = os.urandom(modulus.bit_length() // 8 - overhead)
            same(c.asymmetric_decrypt(key, c.asymmetric_encrypt(key, b64(largest), padding), padding), b64(largest))
            same(c.asymmetric_decrypt(key, b64(rsa.encrypt(public.pubkey, largest, padding)), padding), b64(largest))
            refused(500, None, c.sign, key, "AAAA", "EH_RAW", "EH_SHA_256", padding)
    key = c.create_key("EH_SM2", INTERNAL, ENCRYPT)
    for padding in ("EH_PAD_NONE", "EH_RSA_PKCS1_OAEP"):
        same(c.asymmetric_decrypt(key, c.asymmetric_encrypt(key, "AAAA", padding), padding), "AAAA")
    for spec in EC:
        key = c.create_key(spec, INTERNAL, ENCRYPT)
        assert c.get_public_key(key).pubkey.startswith("-----BEGIN PUBLIC KEY-----\n")
        refused(500, "Server exception.", c.asymmetric_encrypt, key, "AAAA", "EH_PAD_NONE")


def signatures(c):
    for spec in RSA:
        key = c.create_key(spec, INTERNAL, SIGN)
        sign_all(c, key, "EH_RSA_PKCS1", "EH_RSA_PKCS1", ["EH_SHA_224", "EH_SHA_256", "EH_SHA_384", "EH_SHA_512"])
        refused(500, "Server exception.", c.sign, key, "AAAA", "EH_RAW", "EH_SHA_256", "EH_PAD_NONE")
        refused(500, "Server exception.", c.asymmetric_encrypt, key, "AAAA", "EH_RSA_PKCS1")
    for spec in EC:
        key = c.create_key(spec, INTERNAL, SIGN)
        for padding in ("EH_PAD_NONE", "EH_RSA_PKCS1"):
            sign_all(c, key, "EH_PAD_NONE", padding, ["EH_SHA_224", "EH_SHA_256", "EH_SHA_384", "EH_SHA_512", "EH_SM3"])
    key = c.create_key("EH_SM2", INTERNAL, SIGN)
    sign_all(c, key, "EH_PAD_NONE", "EH_RSA_PKCS1", ["EH_SM3"])
    key = c.create_key("EH_HMAC", INTERNAL, SIGN)
    made = c.sign(key, "AAAA", "EH_RAW", "EH_SHA_256", "EH_PAD_NONE")
    same(len(base64.b64decode(made)), 32)
    same(c.verify(key, "AAAA", made, "EH_RAW", "EH_SHA_256", "EH_PAD_NONE"), True)
    same(c.verify(key, "AAAB", made, "EH_RAW", "EH_SHA_256", "EH_PAD_NONE"), False)


def sign_all(c, key, padding, verify_padding, digests):
    sizes = {"EH_SHA_224": 28, "EH_SHA_256": 32, "EH_SHA_384": 48, "EH_SHA_512": 64, "EH_SM3": 32}
    for digest in digests:
        for kind, message in (("EH_RAW", b64(os.urandom(6144))), ("EH_DIGEST", b64(os.urandom(sizes[digest])))):
            made = c.sign(key, message, kind, digest, padding)
            same(c.verify(key, message, made, kind, digest, verify_padding), True)
            other = b64(bytes(len(base64.b64decode(message))))
            same(c.verify(key, other, made, kind, digest, verify_padding), False)


def batches(c):
    key, other = (c.create_key("EH_AES_GCM_256", INTERNAL, ENCRYPT) for _ in range(2))
    plain = [b64(f"item {i}".encode()) for i in range(23)]
    aads = [None, "QQ==", None, "Qg=="]
    made = c.batch("BatchEncrypt", Ciphertexts, keyid=key, plaintexts=plain, aads=aads)
    same((len(made.ciphertexts), made.failures), (23, []))
    same(c.decrypt(key, made.ciphertexts[1], "QQ=="), plain[1])
    same(c.decrypt(key, made.ciphertexts[22]), plain[22])
    opened = c.batch("BatchDecrypt", Plaintexts, keyid=key, ciphertexts=made.ciphertexts, aads=aads[:3])
    same(opened.plaintexts, [p if i != 3 else None for i, p in enumerate(plain)])
    message = "Decryption failed, Please confirm that your parameters are correct."
    same(opened.failures, [{"index": 3, "code": 400, "message": message}])
    moved = c.batch("BatchReEncrypt", Ciphertexts, keyid=key, ciphertexts=made.ciphertexts, aads=aads, ukeyid=other, uaad="Qw==")
    same(moved.failures, [])
    same(c.batch("BatchDecrypt", Plaintexts, keyid=other, ciphertexts=moved.ciphertexts, aad="Qw==").plaintexts, plain)
    same(c.decrypt(other, c.re_encrypt(key, made.ciphertexts[1], other, "QQ=="), "QQ=="), plain[1])
    refused(400, message, c.re_encrypt, key, made.ciphertexts[1], other)
    refused(400, "keyid error", c.re_encrypt, key, made.ciphertexts[0], UNKNOWN)
    for items, text in (("AAAA", "array type."), ([1], "string type.")):
        refused(400, f"Parameter invalid, The plaintexts must be of {text}", c.batch, "BatchEncrypt", Ciphertexts, keyid=key, plaintexts=items)
    sign = c.create_key("EH_EC_P384", INTERNAL, SIGN)
    made = c.batch("BatchSign", Signatures, keyid=sign, messages=plain, message_type="EH_RAW")
    made.signatures[0], made.signatures[4] = made.signatures[1], b64(bytes(513))
    verdicts = c.batch("BatchVerify", Verdicts, keyid=sign, messages=plain, message_type="EH_RAW", signatures=made.signatures)
    same(verdicts.results, [i > 0 if i != 4 else None for i in range(23)])
    same(verdicts.failures, [{"index": 4, "code": 500, "message": "Server exception."}])
    pair = c.create_key("EH_RSA_2048", INTERNAL, ENCRYPT)
    made = c.batch("BatchEncrypt", Ciphertexts, keyid=pair, plaintexts=plain[:3], padding_mode="EH_RSA_PKCS1_OAEP")
    same(c.batch("BatchDecrypt", Plaintexts, keyid=pair, ciphertexts=made.ciphertexts, padding_mode="EH_RSA_PKCS1_OAEP").plaintexts, plain[:3])


def export(c):
    targets = [(c.create_key(spec, INTERNAL, ENCRYPT), "EH_RSA_PKCS1_OAEP") for spec in RSA]
    targets.append((c.create_key("EH_SM2", INTERNAL, ENCRYPT), "EH_PAD_NONE"))
    for spec in ("EH_AES_GCM_256", "EH_SM4_CTR", "EH_SM4_CBC"):
        key = c.create_key(spec, INTERNAL, ENCRYPT)
        for target, padding in targets:
            data = c.generate_data_key(key, 48)
            for _ in range(2):
                exported = c.export_data_key(key, target, data.ciphertext)
                same(c.asymmetric_decrypt(target, exported, padding), data.plaintext)


def imports(c):
    """All specs and paddings; of the larger wrapping keys, which take long to
    make, one each."""
    sizes = {"EH_AES_GCM_128": 16, "EH_AES_GCM_192": 24, "EH_AES_GCM_256": 32, "EH_SM4_CBC": 16, "EH_SM4_CTR": 16}
    paddings = ("EH_RSA_PKCS1", "EH_RSA_PKCS1_OAEP")
    cases = [(spec, "EH_RSA_2048", padding) for spec in sizes for padding in paddings]
    for spec, wrapping, padding in cases + [("EH_SM4_CBC", "EH_RSA_3072", paddings[0]), ("EH_AES_GCM_256", "EH_RSA_4096", paddings[1])]:
        key = c.create_key(spec, EXTERNAL, ENCRYPT)
        session = c.get_parameters_for_import(key, wrapping)
        base64.b64decode(session.importToken, validate=True)
        material = b64(rsa.encrypt(session.pubkey, os.urandom(sizes[spec]), padding))
        same(c.import_key_material(key, padding, material, session.importToken), True)
        plain = b64(os.urandom(48))
        same(c.decrypt(key, c.encrypt(key, plain)), plain)
        refused(500, "ImportToken failed.", c.import_key_material, key, padding, material, session.importToken)


def secrets(c):
    texts = [string.printable, " ", "\t\n\r\v\f", "a b&c=d", 'x\ny+%41"\\é', "&=+%", "x" * 4096, "0", "False"]
    for i, text in enumerate(texts):
        name = f"{i}{text}"[:64]
        c.create_secret(name, text, description=text)
        value = c.get_secret_value(name)
        same((value.secretName, value.secretData, value.versionId), (name, text, 1))
    listed = c.list_secrets()
    same((listed.totalCount, len(listed.secretList)), (len(texts), len(texts)))
    name = "rotating"
    c.create_secret(name, "1", encryption_key_id=c.create_key("EH_AES_GCM_256", INTERNAL, ENCRYPT), rotation_interval="10d")
    for version in range(2, 12):
        c.put_secret_value(name, str(version))
    for version in range(1, 12):
        same(c.get_secret_value(name, version).secretData, str(version))
    same(c.get_secret_value(name).versionId, 11)
    versions = c.list_secret_version_ids(name)
    same((versions.totalCount, sorted(v["versionId"] for v in versions.versionIds)), (11, list(range(1, 12))))
    described = c.describe_secret(name)
    same((described.rotationInterval, described.rationalInterval, described.description), ("10d", "10d", ""))
    c.update_secret_desc(name, "described")
    same(c.describe_secret(name).description, "described")
    same(c.list_secrets(name).totalCount, 1)
    same(c.delete_secret(name, recovery_period=7), f"The {name} will be deleted after 7 days.")
    refused(400, f"Can't find the {name}'s value.", c.get_secret_value, name)
    refused(400, None, c.create_secret, name, "x")
    c.restore_secret(name)
    same(c.get_secret_value(name).secretData, "11")
    same(c.delete_secret(name, force_delete=True), f"The {name} delete success")
    c.create_secret(name, "again")
    same(c.get_secret_value(name).versionId, 1)


def report_data(quote):
    """What an SGX quote of version 3 binds, and whose it is."""
    raw = base64.b64decode(quote, validate=True)
    same(struct.unpack_from("<H", raw), (3,))
    return raw[368:432], raw[112:144].hex(), raw[176:208].hex()


def signed(c, verdict):
    """The signature of a verdict: its members sorted, without what is 0."""
    members = dataclasses.asdict(verdict)
    del members["sign"]
    text = "&".join(f"{k}={'true' if v is True else v}" for k, v in sorted(members.items()) if v not in (0, "", False))
    return b64(hmac.new(c.apikey.encode(), text.encode(), hashlib.sha256).digest())


def quotes(c):
    nonce = b64(os.urandom(32))
    seen = set()
    for size in (1, 32, 3072):
        challenge = os.urandom(size)
        made = c.generate_quote(b64(challenge))
        same(made.challenge, b64(challenge))
        bound, enclave, signer = report_data(made.quote)
        instance = b"ehsm-native-quote/v1" + bytes.fromhex(made.domainId) + base64.b64decode(made.hpkePublicKey, validate=True)
        same(bound, hashlib.sha256(challenge).digest() + hashlib.sha256(instance).digest())
        seen.add(bound)
    same(len(seen), 3)
    policy = c.upload_quote_policy(enclave, signer.upper())
    stored = c.get_quote_policy(policy)
    same((stored.policyId, stored.mr_enclave, stored.mr_signer), (policy, enclave, signer))
    for policy_id in (None, "", policy):
        verdict = c.verify_quote(made.quote, nonce, policy_id)
        same((int(verdict.result), verdict.nonce, verdict.mr_enclave, verdict.mr_signer), (1, nonce, enclave, signer))
        same(verdict.sign, signed(c, verdict))
    refused(500, "Server exception.", c.verify_quote, made.quote, nonce, c.upload_quote_policy(signer, enclave))
    refused(400, "Invalid  policyId.", c.verify_quote, made.quote, nonce, UNKNOWN)
    raw = bytearray(base64.b64decode(made.quote))
    raw[400] ^= 1
    refused(500, "Server exception.", c.verify_quote, b64(bytes(raw)), nonce)
    refused(500, "Server exception.", c.verify_quote, b64(bytes(1000)), nonce)


GROUPS = {f.__name__: f for f in (service, keys, symmetric, sm4, asymmetric, signatures, batches, export, imports, secrets, quotes)}


def main(url, cafile, *groups):
    for group in groups or GROUPS:
        c = Client(url, cafile)
        enrolled = c.enroll()
        c.appid, c.apikey = enrolled.appid, enrolled.apikey
        start = time.monotonic()
        GROUPS[group](c)
        print(f"{group}: ok, {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
