"""A client of the native API in the standard library of Python.

It is written from the contract alone and signs as the existing Python client
does: no nonce, None dropped, empty texts and False kept, booleans as Python
prints them, the path /ehsm/ with a slash, no redirect followed, every HTTP
status but 200 an error, and results expanded into models that demand their
members.
"""

import base64
import dataclasses
import hashlib
import hmac
import json
import ssl
import time
import urllib.parse
import urllib.request


class RefusedError(Exception):
    """The server answered with a code other than 200."""

    def __init__(self, action, code, message):
        super().__init__(f"{action}: {code} {message}")
        self.code, self.message = code, message


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Makes a redirect the error that it is."""

    def redirect_request(self, *_):
        return None


def canonical(members):
    """The members as they are signed: URL-encoded, then decoded again."""
    return urllib.parse.unquote_plus(urllib.parse.urlencode(sorted(members.items())))


def indexed(items):
    """An array as it is signed: indexes for names, sorted as text, without null."""
    return "&".join(f"{i}={items[int(i)]}" for i in sorted(map(str, range(len(items)))) if items[int(i)] is not None)


@dataclasses.dataclass
class Empty:
    pass


@dataclasses.dataclass
class Version:
    version: str
    git_sha: str


@dataclasses.dataclass
class Credentials:
    appid: str
    apikey: str


@dataclasses.dataclass
class KeyID:
    keyid: str


@dataclasses.dataclass
class Ciphertext:
    ciphertext: str


@dataclasses.dataclass
class Plaintext:
    plaintext: str


@dataclasses.dataclass
class DataKey:
    plaintext: str
    ciphertext: str


@dataclasses.dataclass
class Ciphertexts:
    ciphertexts: list
    failures: list


@dataclasses.dataclass
class Plaintexts:
    plaintexts: list
    failures: list


@dataclasses.dataclass
class Signatures:
    signatures: list
    failures: list


@dataclasses.dataclass
class Verdicts:
    results: list
    failures: list


@dataclasses.dataclass
class ExportedKey:
    newdatakey: str


@dataclasses.dataclass
class Signature:
    signature: str


@dataclasses.dataclass
class Verdict:
    result: bool


@dataclasses.dataclass
class PublicKey:
    pubkey: str
    keyid: str


@dataclasses.dataclass
class ImportParameters:
    pubkey: str
    importToken: str


@dataclasses.dataclass
class KeyItem:
    keyid: str
    creationDate: int
    expireTime: int
    alias: str
    keyspec: str
    keyState: int


@dataclasses.dataclass
class KeyList:
    list: list


@dataclasses.dataclass
class SecretVersions:
    secretName: str
    totalCount: int
    versionIds: list


@dataclasses.dataclass
class SecretList:
    totalCount: int
    secretList: list


@dataclasses.dataclass
class SecretDescription:
    secretName: str
    description: str
    createTime: int
    plannedDeleteTime: int
    rotationInterval: str
    rationalInterval: str
    lastRotationDate: int
    nextRotationDate: int


@dataclasses.dataclass
class SecretValue:
    secretName: str
    secretData: str
    versionId: int
    createTime: int


@dataclasses.dataclass
class Quote:
    challenge: str
    quote: str
    domainId: str
    hpkePublicKey: str


@dataclasses.dataclass
class QuoteVerdict:
    result: bool
    nonce: str
    mr_enclave: str
    mr_signer: str
    tcbStatus: int
    sign: str


@dataclasses.dataclass
class PolicyID:
    policyId: str


@dataclasses.dataclass
class QuotePolicy:
    policyId: str
    mr_enclave: str
    mr_signer: str
    createTime: int


def model(cls, result):
    """Expands a result into a model. Members that it does not know are ignored,
    those that it knows must be there with their type."""
    known = {f.name: f.type for f in dataclasses.fields(cls)}
    made = cls(**{k: v for k, v in result.items() if k in known})
    for name, kind in known.items():
        if type(getattr(made, name)) is not kind:
            raise TypeError(f"{cls.__name__}.{name} is {getattr(made, name)!r}, want {kind.__name__}")
    return made


class Client:
    """url ends with /ehsm. cafile names the certificate that the server must
    show."""

    def __init__(self, url, cafile, appid="", apikey=""):
        self.url, self.cafile, self.appid, self.apikey = url, cafile, appid, apikey
        context = ssl.create_default_context(cafile=cafile)
        self.http = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), NoRedirect())

    def open(self, action, body=None):
        """Sends a request and returns message and result of its reply."""
        request = urllib.request.Request(f"{self.url}/?Action={action}", data=body)
        if body is not None:
            request.add_header("Content-Type", "application/json")
        with self.http.open(request, timeout=30) as response:
            reply = json.loads(response.read())
        if "result" not in reply:
            raise ValueError(f"{action}: no result in {reply}")
        if reply["code"] != 200:
            raise RefusedError(action, reply["code"], reply["message"])
        return reply["message"], reply["result"]

    def body(self, payload=None):
        """Signs a payload as it is now; None is no payload."""
        signed = {"appid": self.appid, "timestamp": str(int(time.time() * 1000))}
        sent = dict(signed)
        if payload is not None:
            payload = {k: v for k, v in payload.items() if v is not None}
            flat = {k: indexed(v) if isinstance(v, list) else v for k, v in payload.items()}
            sent["payload"], signed["payload"] = payload, canonical(flat)
        mac = hmac.new(self.apikey.encode(), canonical(signed).encode(), hashlib.sha256)
        sent["sign"] = base64.b64encode(mac.digest()).decode()
        return json.dumps(sent).encode()

    def call(self, name, cls=Empty, /, **payload):
        return model(cls, self.open(name, self.body(payload))[1])

    # Service

    def get_version(self):
        return model(Version, self.open("GetVersion")[1])

    def enroll(self):
        return model(Credentials, self.open("Enroll")[1])

    # Keys

    def create_key(self, keyspec, origin, keyusage):
        return self.call("CreateKey", KeyID, keyspec=keyspec, origin=origin, keyusage=keyusage).keyid

    def list_keys(self):
        result = model(KeyList, self.open("ListKey", self.body())[1])
        return [model(KeyItem, item) for item in result.list]

    def enable_key(self, keyid):
        self.call("EnableKey", keyid=keyid)

    def disable_key(self, keyid):
        self.call("DisableKey", keyid=keyid)

    def delete_key(self, keyid):
        self.call("DeleteKey", keyid=keyid)

    def delete_all_keys(self):
        self.open("DeleteAllKey", self.body())

    def get_public_key(self, keyid):
        return self.call("GetPublicKey", PublicKey, keyid=keyid)

    # Cryptography

    def encrypt(self, keyid, plaintext, aad=None):
        return self.call("Encrypt", Ciphertext, keyid=keyid, plaintext=plaintext, aad=aad).ciphertext

    def decrypt(self, keyid, ciphertext, aad=None):
        return self.call("Decrypt", Plaintext, keyid=keyid, ciphertext=ciphertext, aad=aad).plaintext

    def generate_data_key(self, keyid, keylen, aad=None):
        return self.call("GenerateDataKey", DataKey, keyid=keyid, keylen=keylen, aad=aad)

    def generate_data_key_without_plaintext(self, keyid, keylen, aad=None):
        result = self.open("GenerateDataKeyWithoutPlaintext", self.body({"keyid": keyid, "keylen": keylen, "aad": aad}))[1]
        if "plaintext" in result:
            raise ValueError("a data key came with its plaintext")
        return model(Ciphertext, result).ciphertext

    def export_data_key(self, keyid, ukeyid, old_data_key, aad=None):
        return self.call("ExportDataKey", ExportedKey, keyid=keyid, ukeyid=ukeyid, old_data_key=old_data_key, aad=aad).newdatakey

    def asymmetric_encrypt(self, keyid, plaintext, padding_mode):
        return self.call("AsymmetricEncrypt", Ciphertext, keyid=keyid, plaintext=plaintext, padding_mode=padding_mode).ciphertext

    def asymmetric_decrypt(self, keyid, ciphertext, padding_mode):
        return self.call("AsymmetricDecrypt", Plaintext, keyid=keyid, ciphertext=ciphertext, padding_mode=padding_mode).plaintext

    def sign(self, keyid, message, message_type, digest_mode, padding_mode):
        return self.call("Sign", Signature, keyid=keyid, message=message, message_type=message_type,
                         digest_mode=digest_mode, padding_mode=padding_mode).signature

    def verify(self, keyid, message, signature, message_type, digest_mode, padding_mode):
        return self.call("Verify", Verdict, keyid=keyid, message=message, signature=signature, message_type=message_type,
                         digest_mode=digest_mode, padding_mode=padding_mode).result

    def re_encrypt(self, keyid, ciphertext, ukeyid=None, aad=None, uaad=None):
        return self.call("ReEncrypt", Ciphertext, action="ReEncrypt", keyid=keyid, ciphertext=ciphertext, ukeyid=ukeyid,
                         aad=aad, uaad=uaad).ciphertext

    def batch(self, name, cls, /, **payload):
        return self.call(name, cls, action=name, **payload)

    def get_parameters_for_import(self, keyid, keyspec):
        return self.call("GetParametersForImport", ImportParameters, keyid=keyid, keyspec=keyspec)

    def import_key_material(self, keyid, padding_mode, key_material, import_token):
        return self.call("ImportKeyMaterial", Verdict, keyid=keyid, padding_mode=padding_mode,
                         key_material=key_material, importToken=import_token).result

    # Secrets

    def create_secret(self, name, data, encryption_key_id=None, description=None, rotation_interval=None):
        self.call("CreateSecret", secretName=name, secretData=data, encryptionKeyId=encryption_key_id,
                  description=description, rotationInterval=rotation_interval)

    def update_secret_desc(self, name, description=None):
        self.call("UpdateSecretDesc", secretName=name, description=description)

    def put_secret_value(self, name, data):
        self.call("PutSecretValue", secretName=name, secretData=data)

    def list_secret_version_ids(self, name):
        return self.call("ListSecretVersionIds", SecretVersions, secretName=name)

    def list_secrets(self, name=None):
        return self.call("ListSecrets", SecretList, secretName=name)

    def describe_secret(self, name):
        return self.call("DescribeSecret", SecretDescription, secretName=name)

    def delete_secret(self, name, recovery_period=None, force_delete=False):
        return self.open("DeleteSecret", self.body({"secretName": name, "recoveryPeriod": recovery_period, "force_delete": force_delete}))[0]

    def get_secret_value(self, name, version_id=None):
        return self.call("GetSecretValue", SecretValue, secretName=name, versionId=version_id)

    def restore_secret(self, name):
        self.call("RestoreSecret", secretName=name)

    # Remote attestation

    def generate_quote(self, challenge):
        return self.call("GenerateQuote", Quote, challenge=challenge)

    def verify_quote(self, quote, nonce, policy_id=None):
        return self.call("VerifyQuote", QuoteVerdict, quote=quote, nonce=nonce, policyId=policy_id)

    def upload_quote_policy(self, mr_enclave, mr_signer):
        return self.call("UploadQuotePolicy", PolicyID, mr_enclave=mr_enclave, mr_signer=mr_signer).policyId

    def get_quote_policy(self, policy_id):
        return self.call("GetQuotePolicy", QuotePolicy, policyId=policy_id)
