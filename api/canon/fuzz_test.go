package canon

import "testing"

func addSeeds(f *testing.F) {
	for _, tt := range vectors {
		f.Add([]byte(tt.body))
	}
	for _, tt := range rules {
		f.Add([]byte(`{"appid":"a","payload":` + tt.object + `}`))
	}
	for _, tt := range numbers {
		f.Add([]byte(`{"payload":{"a":` + tt.json + `}}`))
	}
	for _, s := range []string{
		``, `{`, `[]`, `{"a":1,}`, `{"a":"\ud800\u12"}`, "{\"a\":\"\xff\"}", `{"a":1e999}`, nested(MaxDepth), nested(MaxDepth + 1),
		`{"payload":{"f":false,"t":true,"e":"","l":[["",0],[null,"x"]]},"nonce":""}`, "{\"\U0001f600\":1,\"\uffff\":2}",
	} {
		f.Add([]byte(s))
	}
}

// maxFuzz is a length in bytes that cannot reach MaxValues, which encoding/json
// does not know.
const maxFuzz = 32 << 10

func FuzzParse(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) <= maxFuzz {
			checkParse(t, body)
		}
	})
}

func FuzzCanonical(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > maxFuzz {
			return
		}
		if _, ok := oracleParse(body); ok {
			checkCanonical(t, body)
		}
	})
}
