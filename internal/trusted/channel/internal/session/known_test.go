package session

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest"
)

// Messages and digests with fixed inputs, made by testdata/vectors.py, which was
// written from docs/channel.md. Add lines, never change one.
//
//go:embed testdata/vectors.json
var vectors []byte

var (
	remote = Kind{Name: "ehsm-attest/1", Use: attest.UseChannel, Wants: true}
	nearby = Kind{Name: "ehsm-local/1", Use: attest.UseLocal, Open: true}
)

func filled(n int, first byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

func TestKnownAnswers(t *testing.T) {
	var want map[string]string
	if err := json.Unmarshal(vectors, &want); err != nil {
		t.Fatal(err)
	}
	domain, exporter := [32]byte(filled(32, 1)), [32]byte(filled(32, 100))
	nonceC, nonceS := [32]byte(filled(32, 10)), [32]byte(filled(32, 60))
	openingC := openingMessage{Client, DKeyCache, domain, nonceC, true, nil}
	openingS := openingMessage{Server, DKeyServer, domain, nonceS, false, filled(5, 0)}
	evidenceC := evidenceMessage{[hpkeKeySize]byte(filled(hpkeKeySize, 3)), proofMessage{filled(40, 5), nil}}
	evidenceS := evidenceMessage{[hpkeKeySize]byte(filled(hpkeKeySize, 4)), proofMessage{filled(50, 6), filled(9, 9)}}
	h := handshake{}
	h.frames[slot(opening, Client)] = frame{opening, 7, openingC.append(nil)}.append(nil)
	h.frames[slot(opening, Server)] = frame{opening, 8, openingS.append(nil)}.append(nil)
	h.frames[slot(evidence, Client)] = frame{evidence, 7, evidenceC.append(nil)}.append(nil)
	h.frames[slot(evidence, Server)] = frame{evidence, 8, evidenceS.append(nil)}.append(nil)
	opened, transcript := h.opening(), h.transcript()
	b := binding{domain, DKeyCache, exporter, nonceS, [32]byte(filled(32, 140)), sha256.Sum256(evidenceC.hpkeKey[:]), opened}
	again := proofMessage{filled(40, 5), filled(3, 1)}
	fixed := func(v [32]byte) []byte { return v[:] }
	wide := func(v [64]byte) []byte { return v[:] }
	for name, got := range map[string][]byte{
		"opening of the client":    h.frames[0],
		"opening of the server":    h.frames[1],
		"evidence of the client":   fixed(sha256.Sum256(h.frames[2])),
		"evidence of the server":   fixed(sha256.Sum256(h.frames[3])),
		"proof":                    frame{proof, 9, again.append(nil)}.append(nil),
		"challenge":                frame{challenge, 9, nonceC[:]}.append(nil),
		"refused":                  frame{refused, 9, []byte{byte(ReasonEvidence)}}.append(nil),
		"goodbye":                  frame{goodbye, 9, nil}.append(nil),
		"data":                     frame{data, 9, []byte("text")}.append(nil),
		"opening digest":           opened[:],
		"transcript":               transcript[:],
		"REPORTDATA, remote":       wide(b.reportData(remote)),
		"REPORTDATA, local":        wide(b.reportData(nearby)),
		"acceptance of the client": fixed(acceptance(exporter, Client, transcript)),
		"acceptance of the server": fixed(acceptance(exporter, Server, transcript)),
		"info of a sealed message": sealInfo(domain, Client, exporter, "dk"),
		"label of evidence":        []byte(label(remote, forEvidence, Client, DKeyCache)),
		"label of evidence again":  []byte(label(remote, forAgain, Server, DKeyServer)),
		"label of acceptance":      []byte(label(remote, forAccepted, Client, "")),
		"label of sealing":         []byte(label(nearby, forSeal, Server, "")),
	} {
		if hex.EncodeToString(got) != want[name] {
			t.Errorf("%s: got %x, want %s", name, got, want[name])
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("%s: nothing was compared", name)
	}
}

// TestBindings changes one thing after the other: each makes another REPORTDATA,
// and what the local one binds in addition does not count for a remote one.
func TestBindings(t *testing.T) {
	base := binding{role: Core}
	changes := map[string]func(*binding){
		"nothing":  func(*binding) {},
		"domain":   func(b *binding) { b.domain[0] = 1 },
		"role":     func(b *binding) { b.role = DKeyCache },
		"exporter": func(b *binding) { b.exporter[0] = 1 },
		"nonce":    func(b *binding) { b.nonce[0] = 1 },
		"SPKI":     func(b *binding) { b.spki[0] = 1 },
		"HPKE key": func(b *binding) { b.hpkeKey[0] = 1 },
		"opening":  func(b *binding) { b.opening[0] = 1 },
	}
	for _, k := range []Kind{remote, nearby} {
		seen := map[[64]byte]string{}
		for name, change := range changes {
			if name == "opening" && !k.Open {
				continue
			}
			b := base
			change(&b)
			d := b.reportData(k)
			if other, twice := seen[d]; twice {
				t.Errorf("%s: %s and %s have one REPORTDATA", k.Name, name, other)
			}
			seen[d] = name
		}
	}
	if base.reportData(remote) == base.reportData(nearby) {
		t.Error("remote and local have one REPORTDATA")
	}
}

// TestLabelsDiffer compares the labels of all exporters.
func TestLabelsDiffer(t *testing.T) {
	seen := map[string]bool{}
	count := 0
	for _, k := range []Kind{remote, nearby} {
		for _, s := range []Side{Client, Server} {
			for _, r := range []Role{"", Core, DKeyCache, DKeyServer} {
				for _, purpose := range []string{forEvidence, forAgain, forAccepted, forSeal} {
					seen[label(k, purpose, s, r)] = true
					count++
				}
			}
		}
	}
	if len(seen) != count {
		t.Errorf("got %d labels, want %d", len(seen), count)
	}
}

func TestReasonsAreNamed(t *testing.T) {
	seen := map[string]bool{}
	for r := ReasonProtocol; r <= ReasonOther; r++ {
		seen[r.String()] = true
	}
	if len(seen) != int(ReasonOther) || (&Refusal{ReasonBusy}).Error() == "" || Reason(99).String() == "" {
		t.Errorf("got names %v", seen)
	}
	if kind(0).String() == kind(99).String() || !bytes.Contains([]byte(goodbye.String()), []byte("goodbye")) {
		t.Error("kinds are misnamed")
	}
	if Role("manager").Product() != 0 {
		t.Error("an unknown role has a product")
	}
}
