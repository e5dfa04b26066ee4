"""HPKE (RFC 9180, base mode) with MLKEM768-X25519, HKDF-SHA-256 and AES-256-GCM in the
standard library of Python, for tests: slow, and nothing hides its timing.

ML-KEM-768 is FIPS 203, X25519 RFC 7748, AES-GCM SP 800-38D, the KEM that joins the first
two draft-ietf-hpke-pq (id 0x647a; the same bytes as X-Wing). `python3 hpke.py` checks
known answers.
"""

import hashlib
import hmac
import os

# --- ML-KEM-768 ---

Q, K, N = 3329, 3, 256


def _bit_reverse(i):
    return int(f"{i:07b}"[::-1], 2)


ZETAS = [pow(17, _bit_reverse(i), Q) for i in range(128)]
GAMMAS = [pow(17, 2 * _bit_reverse(i) + 1, Q) for i in range(128)]


def _ntt(f):
    f, i, length = f[:], 1, 128
    while length >= 2:
        for start in range(0, N, 2 * length):
            zeta, i = ZETAS[i], i + 1
            for j in range(start, start + length):
                t = zeta * f[j + length] % Q
                f[j + length], f[j] = (f[j] - t) % Q, (f[j] + t) % Q
        length //= 2
    return f


def _inverse_ntt(f):
    f, i, length = f[:], 127, 2
    while length <= 128:
        for start in range(0, N, 2 * length):
            zeta, i = ZETAS[i], i - 1
            for j in range(start, start + length):
                t = f[j]
                f[j], f[j + length] = (t + f[j + length]) % Q, zeta * (f[j + length] - t) % Q
        length *= 2
    return [x * 3303 % Q for x in f]


def _multiply(f, g):
    h = []
    for i in range(128):
        a, b, c, d = f[2 * i], f[2 * i + 1], g[2 * i], g[2 * i + 1]
        h += [(a * c + b * d * GAMMAS[i]) % Q, (a * d + b * c) % Q]
    return h


def _add(f, g):
    return [(a + b) % Q for a, b in zip(f, g)]


def _inner(fs, gs):
    total = [0] * N
    for f, g in zip(fs, gs):
        total = _add(total, _multiply(f, g))
    return total


def _encode(d, f):
    return sum(x << (d * i) for i, x in enumerate(f)).to_bytes(32 * d, "little")


def _decode(d, b):
    n, mask = int.from_bytes(b, "little"), (1 << d) - 1
    f = [(n >> (d * i)) & mask for i in range(N)]
    return [x % Q for x in f] if d == 12 else f


def _compress(d, f):
    return [((x << d) + Q // 2) // Q % (1 << d) for x in f]


def _decompress(d, f):
    return [(x * Q + (1 << (d - 1))) >> d for x in f]


def _sample_ntt(seed):
    stream, f, i = hashlib.shake_128(seed).digest(3 * 560), [], 0
    while len(f) < N:
        a, b, c = stream[i:i + 3]
        for d in (a + 256 * (b % 16), b // 16 + 16 * c):
            if d < Q and len(f) < N:
                f.append(d)
        i += 3
    return f


def _sample_cbd(seed, i):
    bits = int.from_bytes(hashlib.shake_256(seed + bytes([i])).digest(128), "little")
    return [((bits >> 4 * j & 1) + (bits >> 4 * j + 1 & 1) - (bits >> 4 * j + 2 & 1) - (bits >> 4 * j + 3 & 1)) % Q for j in range(N)]


def _matrix(rho):
    return [[_sample_ntt(rho + bytes([j, i])) for j in range(K)] for i in range(K)]


def _mlkem_keygen(d, z):
    g = hashlib.sha3_512(d + bytes([K])).digest()
    rho, sigma = g[:32], g[32:]
    a = _matrix(rho)
    s = [_ntt(_sample_cbd(sigma, i)) for i in range(K)]
    e = [_ntt(_sample_cbd(sigma, K + i)) for i in range(K)]
    t = [_add(_inner(a[i], s), e[i]) for i in range(K)]
    public = b"".join(_encode(12, f) for f in t) + rho
    return public, (s, public, z)


def _pke_encrypt(public, m, r):
    t = [_decode(12, public[384 * i:384 * (i + 1)]) for i in range(K)]
    a = _matrix(public[384 * K:])
    y = [_ntt(_sample_cbd(r, i)) for i in range(K)]
    e1, e2 = [_sample_cbd(r, K + i) for i in range(K)], _sample_cbd(r, 2 * K)
    u = [_add(_inverse_ntt(_inner([a[j][i] for j in range(K)], y)), e1[i]) for i in range(K)]
    v = _add(_add(_inverse_ntt(_inner(t, y)), e2), _decompress(1, _decode(1, m)))
    return b"".join(_encode(10, _compress(10, f)) for f in u) + _encode(4, _compress(4, v))


def _mlkem_encapsulate(public, m):
    if len(public) != 1184 or b"".join(_encode(12, _decode(12, public[384 * i:384 * (i + 1)])) for i in range(K)) != public[:384 * K]:
        raise ValueError("no ML-KEM-768 public key")
    g = hashlib.sha3_512(m + hashlib.sha3_256(public).digest()).digest()
    return g[:32], _pke_encrypt(public, m, g[32:])


def _mlkem_decapsulate(private, c):
    s, public, z = private
    u = [_ntt(_decompress(10, _decode(10, c[320 * i:320 * (i + 1)]))) for i in range(K)]
    v = _decompress(4, _decode(4, c[320 * K:]))
    w = [(a - b) % Q for a, b in zip(v, _inverse_ntt(_inner(s, u)))]
    m = _encode(1, _compress(1, w))
    g = hashlib.sha3_512(m + hashlib.sha3_256(public).digest()).digest()
    if _pke_encrypt(public, m, g[32:]) != c:
        return hashlib.shake_256(z + c).digest(32)
    return g[:32]


# --- X25519 ---

P = 2**255 - 19


def x25519(scalar, point):
    k = int.from_bytes(scalar, "little") & ~7 & (2**254 - 1) | 2**254
    u = int.from_bytes(point, "little") & (2**255 - 1)
    x2, z2, x3, z3, swapped = 1, 0, u, 1, 0
    for i in reversed(range(255)):
        bit = k >> i & 1
        if bit != swapped:
            x2, z2, x3, z3 = x3, z3, x2, z2
        swapped = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, (aa - bb) * (aa + 121665 * (aa - bb)) % P
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


BASE = (9).to_bytes(32, "little")


# --- MLKEM768-X25519 ---

class PrivateKey:
    """A key pair, of 32 bytes."""

    def __init__(self, seed=None):
        expanded = hashlib.shake_256(seed or os.urandom(32)).digest(96)
        public, self._mlkem = _mlkem_keygen(expanded[:32], expanded[32:64])
        self._x = expanded[64:]
        self.public = public + x25519(self._x, BASE)

    def decapsulate(self, enc):
        if len(enc) != 1120:
            raise ValueError(f"encapsulated key of {len(enc)} bytes")
        return _combine(_mlkem_decapsulate(self._mlkem, enc[:1088]), x25519(self._x, enc[1088:]), enc[1088:], self.public[1184:])


def _combine(mlkem_shared, x_shared, x_ct, x_public):
    return hashlib.sha3_256(mlkem_shared + x_shared + x_ct + x_public + b"\\.//^\\").digest()


def encapsulate(public, random=os.urandom):
    """Shared secret and encapsulated key, 1120 bytes."""
    m_shared, m_ct = _mlkem_encapsulate(public[:1184], random(32))
    e = random(32)
    x_ct, x_public = x25519(e, BASE), public[1184:]
    return _combine(m_shared, x25519(e, x_public), x_ct, x_public), m_ct + x_ct


# --- HKDF-SHA-256 ---

def extract(salt, ikm):
    return hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()


def expand(prk, info, n):
    out, block, i = b"", b"", 1
    while len(out) < n:
        block = hmac.new(prk, block + info + bytes([i]), hashlib.sha256).digest()
        out, i = out + block, i + 1
    return out[:n]


# --- AES-256-GCM ---

def _make_sbox():
    box, p, q = [0x63] * 256, 1, 1
    while True:
        p ^= (p << 1) ^ (0x11B if p & 0x80 else 0)
        p &= 0xFF
        q ^= q << 1
        q ^= q << 2
        q ^= q << 4
        q &= 0xFF
        if q & 0x80:
            q ^= 0x09
        x = q
        for shift in (1, 2, 3, 4):
            x ^= (q << shift | q >> (8 - shift)) & 0xFF
        box[p] = x ^ 0x63
        if p == 1:
            return box


SBOX = _make_sbox()


def _double(b):
    return (b << 1) ^ (0x11B if b & 0x80 else 0)


def _key_schedule(key):
    words, rcon = [list(key[i:i + 4]) for i in range(0, 32, 4)], 1
    for i in range(8, 60):
        w = words[i - 1]
        if i % 8 == 0:
            w = [SBOX[b] for b in w[1:] + w[:1]]
            w[0] ^= rcon
            rcon = _double(rcon)
        elif i % 8 == 4:
            w = [SBOX[b] for b in w]
        words.append([a ^ b for a, b in zip(words[i - 8], w)])
    return [sum(words[i:i + 4], []) for i in range(0, 60, 4)]


def _aes(schedule, block):
    s = [a ^ b for a, b in zip(block, schedule[0])]
    for n, key in enumerate(schedule[1:], 1):
        s = [SBOX[s[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if n < 14:
            mixed = []
            for c in range(0, 16, 4):
                a = s[c:c + 4]
                every = a[0] ^ a[1] ^ a[2] ^ a[3]
                mixed += [a[i] ^ every ^ _double(a[i] ^ a[(i + 1) % 4]) for i in range(4)]
            s = mixed
        s = [a ^ b for a, b in zip(s, key)]
    return bytes(s)


def _ghash(h, data):
    y = 0
    for i in range(0, len(data), 16):
        y ^= int.from_bytes(data[i:i + 16].ljust(16, b"\0"), "big")
        z, v = 0, h
        for bit in range(127, -1, -1):
            if y >> bit & 1:
                z ^= v
            v = v >> 1 ^ (0xE1 << 120 if v & 1 else 0)
        y = z
    return y


def _gcm(key, nonce, data):
    """The key stream applied to data, and what makes the tag of a ciphertext."""
    schedule = _key_schedule(key)
    stream = b"".join(_aes(schedule, nonce + (2 + i).to_bytes(4, "big")) for i in range((len(data) + 15) // 16))
    h = int.from_bytes(_aes(schedule, bytes(16)), "big")
    mask = int.from_bytes(_aes(schedule, nonce + (1).to_bytes(4, "big")), "big")

    def tag(aad, ciphertext):
        pad = lambda b: b + bytes(-len(b) % 16)
        sizes = (8 * len(aad)).to_bytes(8, "big") + (8 * len(ciphertext)).to_bytes(8, "big")
        return (_ghash(h, pad(aad) + pad(ciphertext) + sizes) ^ mask).to_bytes(16, "big")

    return bytes(a ^ b for a, b in zip(data, stream)), tag


def gcm_seal(key, nonce, plaintext, aad=b""):
    ciphertext, tag = _gcm(key, nonce, plaintext)
    return ciphertext + tag(aad, ciphertext)


def gcm_open(key, nonce, sealed, aad=b""):
    plaintext, tag = _gcm(key, nonce, sealed[:-16])
    if len(sealed) < 16 or not hmac.compare_digest(tag(aad, sealed[:-16]), sealed[-16:]):
        raise ValueError("does not open")
    return plaintext


# --- HPKE ---

AES_256_GCM, EXPORT_ONLY = 0x0002, 0xFFFF


class Context:
    """What sender and recipient share: one message, and any number of secrets."""

    def __init__(self, shared, info, aead=AES_256_GCM):
        self._suite = b"HPKE" + (0x647A).to_bytes(2, "big") + (1).to_bytes(2, "big") + aead.to_bytes(2, "big")
        context = b"\0" + self._extract(b"", b"psk_id_hash", b"") + self._extract(b"", b"info_hash", info)
        secret = self._extract(shared, b"secret", b"")
        self._key, self._nonce = self._expand(secret, b"key", context, 32), self._expand(secret, b"base_nonce", context, 12)
        self._exporter = self._expand(secret, b"exp", context, 32)

    def _extract(self, salt, label, ikm):
        return extract(salt, b"HPKE-v1" + self._suite + label + ikm)

    def _expand(self, prk, label, info, n):
        return expand(prk, n.to_bytes(2, "big") + b"HPKE-v1" + self._suite + label + info, n)

    def export(self, context, n):
        return self._expand(self._exporter, b"sec", context, n)

    def seal(self, plaintext):
        return gcm_seal(self._key, self._nonce, plaintext)

    def open(self, sealed):
        return gcm_open(self._key, self._nonce, sealed)


def sender(public, info, aead=AES_256_GCM, random=os.urandom):
    shared, enc = encapsulate(public, random)
    return enc, Context(shared, info, aead)


def recipient(private, enc, info, aead=AES_256_GCM):
    return Context(private.decapsulate(enc), info, aead)


def check():
    """Known answers: RFC 7748 5.2; GCM specification, test cases 14 and 16; ours."""
    got = x25519(bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
                 bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"))
    assert got.hex() == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert gcm_seal(bytes(32), bytes(12), bytes(16)).hex() == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
    plaintext = bytes.fromhex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39")
    aad = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    sealed = gcm_seal(key, bytes.fromhex("cafebabefacedbaddecaf888"), plaintext, aad)
    assert sealed[-16:].hex() == "76fc6ece0f4e1768cddf8853bb2d551b"
    assert gcm_open(key, bytes.fromhex("cafebabefacedbaddecaf888"), sealed, aad) == plaintext
    own = PrivateKey(bytes(range(32)))
    enc, s = sender(own.public, b"info")
    r = recipient(own, enc, b"info")
    assert r.open(s.seal(b"text")) == b"text" and r.export(b"x", 32) == s.export(b"x", 32)
    bad = bytes([enc[0] ^ 1]) + enc[1:]
    assert recipient(own, bad, b"info").export(b"x", 32) != s.export(b"x", 32)


if __name__ == "__main__":
    check()
