package verify_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// acceptedFlips reads the table of single-bit changes that do not end in a
// refusal: lines of name, offset, bit, and the reason.
func acceptedFlips(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("testdata/accepted_flips.txt")
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.SplitN(line, " ", 4)
		if len(fields) != 4 {
			t.Fatalf("line %q has no reason", line)
		}
		table[strings.Join(fields[:3], " ")] = fields[3]
	}
	return table
}

// A flipped is a text of which every byte is changed in turn.
type flipped struct {
	name   string
	bytes  []byte
	all    [][2]int // from, to: these have each of their bits changed
	skip   [2]int   // from, to: these are tried elsewhere
	verify func(b []byte) error
}

func flips(t *testing.T) []flipped {
	var all []flipped
	for _, g := range genuineQuotes(t) {
		f := flipped{name: g.name, bytes: g.quote, verify: func(b []byte) error {
			_, err := verify.Verify(b, g.collateral, intel(g.at))
			return err
		}}
		const lengths = quote.SignedSize + 4 + 64 + 64 + quote.ReportSize + 64
		f.all = [][2]int{{0, 8}, {quote.SignedSize, quote.SignedSize + 4}, {lengths, lengths + 2}, {lengths + 2 + 32, lengths + 2 + 32 + 6}}
		all = append(all, f)
	}
	g, h := genuineQuotes(t)[0], genuineQuotes(t)[1]
	bundle := func(g genuine, decode func([]byte) (verify.Collateral, error)) func(b []byte) error {
		return func(b []byte) error {
			c, err := decode(b)
			if err != nil {
				return err
			}
			_, err = verify.Verify(g.quote, c, intel(g.at))
			return err
		}
	}
	body := read(t, "automata/sgx_tcbinfov3_00606a000000.json")
	inner := bytes.Index(body, h.collateral.TCBInfo)
	return append(all,
		flipped{name: "phala/collateral.json", bytes: read(t, "phala/sgx_quote_collateral.json"), verify: bundle(g, verify.DecodeCollateralJSON)},
		flipped{name: "automata/bundle", bytes: h.collateral.Append(nil), all: [][2]int{{0, 9}}, verify: bundle(h, verify.DecodeCollateral)},
		flipped{
			name: "automata/tcbinfo.json", bytes: body, skip: [2]int{inner, inner + len(h.collateral.TCBInfo)}, // as in the bundle
			verify: bundle(h, func(b []byte) (verify.Collateral, error) {
				c := h.collateral
				return c, c.SetTCBInfo(b)
			}),
		},
	)
}

// TestEveryFlipIsRefused changes bits of genuine quotes and of their collateral:
// one of every byte, with its place going through the byte from one to the
// next, and all eight of versions, types and lengths. With the race detector, or with
// -short, it takes every 16th.
func TestEveryFlipIsRefused(t *testing.T) {
	accepted, stride := acceptedFlips(t), flipStride
	if testing.Short() {
		stride = 16
	}
	var seen sync.Map
	for _, f := range flips(t) {
		if err := f.verify(f.bytes); err != nil {
			t.Fatalf("%s, unchanged: %v", f.name, err)
		}
		var workers sync.WaitGroup
		for part := range 2 { // the machine has at least so many cores
			workers.Go(func() { f.run(part, stride, func(flip string) { seen.Store(flip, true) }) })
		}
		workers.Wait()
	}
	seen.Range(func(flip, _ any) bool {
		if _, ok := accepted[flip.(string)]; !ok {
			t.Errorf("accepted, and not in the table: %s", flip)
		}
		return true
	})
	if stride == 1 {
		for flip, reason := range accepted {
			if _, ok := seen.Load(flip); !ok {
				t.Errorf("in the table, and refused: %s (%s)", flip, reason)
			}
		}
	}
}

// run tries half of the flips and reports those that are accepted.
func (f flipped) run(part, stride int, accept func(flip string)) {
	b := bytes.Clone(f.bytes)
	for i := part * stride; i < len(b); i += 2 * stride {
		if i >= f.skip[0] && i < f.skip[1] {
			continue
		}
		bits := []int{(i * 5) % 8} // 5 and 8 have no common factor
		if slices.ContainsFunc(f.all, func(r [2]int) bool { return i >= r[0] && i < r[1] }) {
			bits = []int{0, 1, 2, 3, 4, 5, 6, 7}
		}
		for bit := range slices.Values(bits) {
			b[i] ^= 1 << bit
			if f.verify(b) == nil {
				accept(fmt.Sprintf("%s %d %d", f.name, i, bit))
			}
			b[i] ^= 1 << bit
		}
	}
}
