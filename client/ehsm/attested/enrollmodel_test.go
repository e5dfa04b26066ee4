package attested_test

import "testing"

// Two clients enroll in one domain with the same token. The attacker has the private
// half of the second one's key for the reply. He administers his own domain, knows the
// hash of the token, which is as good there as he likes, and reads all that is stored
// there. In the client's domain he can put an older row of the token back.

const (
	eClients = 2
	eLeaked  = 1 // whose key he has
	eThief   = 2 // his own request, once he has the token
)

// eClient is the state of a client.
type eClient struct {
	sent statement // what it has encrypted its request to; zero: it waits for evidence
	app  byte      // program that has made its app, pEvil for the attacker; 0: it waits
}

type eWorld struct {
	clients [eClients]eClient
	apps    [eClients + 1]uint8 // made by each request, in the domain of its key's program
	row     uint8               // uses of the token, as the row says
	fact    uint8               // uses of the token, as the log of negative facts says
	token   bool                // the attacker has it
	apiKey  [eClients]bool      // likewise
}

// eModel is enrollment with a token of so many uses.
type eModel struct {
	protocol
	uses uint8
}

func (m eModel) next(w eWorld) (all []eWorld) {
	move := func(change func(*eWorld)) {
		n := w
		change(&n)
		all = append(all, n)
	}
	for i, c := range w.clients {
		switch {
		case c.sent == (statement{}):
			for _, s := range m.verified(pCore) {
				move(func(w *eWorld) {
					w.clients[i].sent = s
					w.token = w.token || leaked(s.key) // he reads the request
				})
			}
			continue
		case c.app == 0:
			m.replies(&w, i, move)
		}
		for _, program := range []byte{pCore, pOther, pForeign} {
			// Without the instance in the info, its key tells who opens.
			if m.opens(program, program, c.sent) && (!m.has("info") || c.sent.instance == program) {
				m.enroll(&w, i, program, move)
			}
		}
	}
	if w.token {
		m.enroll(&w, eThief, pCore, move)
	}
	if w.row > 0 {
		move(func(w *eWorld) { w.row-- })
	}
	return all
}

// enroll has a program that has opened a request make an app.
func (m eModel) enroll(w *eWorld, request int, program byte, move func(func(*eWorld))) {
	switch {
	case w.apps[request] > 0 && (m.has("appid") || program == pForeign), w.apps[request] > 2:
		// The app is there, and its reply comes again. Or there are enough of them.
	case program == pForeign:
		move(func(w *eWorld) { w.apps[request]++ })
	case m.has("uses") && w.row >= m.uses:
	case m.has("facts") && w.fact > w.row:
	default:
		move(func(w *eWorld) { w.apps[request]++; w.row++; w.fact = max(w.fact, w.row) })
	}
}

// replies delivers a reply to a client, or has the attacker read it.
func (m eModel) replies(w *eWorld, i int, move func(func(*eWorld))) {
	c := w.clients[i]
	// The info of a reply has a secret from the request.
	secret := !m.has("secret") || leaked(c.sent.key)
	if secret && (i == eLeaked || leaked(c.sent.key)) { // he has the public key
		move(func(w *eWorld) { w.clients[i].app = pEvil })
	}
	if w.apps[i] == 0 {
		return
	}
	move(func(w *eWorld) { w.clients[i].app = c.sent.key })
	if secret && i == eLeaked || c.sent.key == pForeign {
		move(func(w *eWorld) { w.apiKey[i] = true })
	}
}

func (m eModel) flaw(w *eWorld) string {
	made := w.apps[eThief]
	for i, c := range w.clients {
		if c.sent.key != pForeign {
			made += w.apps[i]
		}
		switch {
		case c.app == pEvil:
			return "a client has an app of the attacker"
		case c.app != 0 && domainOf(c.app) != dClient:
			return "a client has an app in another domain"
		case w.apiKey[i]:
			return "the attacker has an API key"
		case w.apps[i] > 1:
			return "a request has made two apps"
		}
	}
	switch {
	case w.token:
		return "the attacker has the token"
	case made > m.uses:
		return "the token has made more apps than it is good for"
	}
	return ""
}

// TestEnrollModel searches enrollment as it is, and then without some of its checks.
// Where one can be left out, another stands behind it.
func TestEnrollModel(t *testing.T) {
	rows := []modelRow{
		{"", false},
		{"code", true},
		{"use", true},
		{"challenge", true},
		{"key", true},
		{"pin", true},
		{"domain", false}, // the info has it, and the foreign core another
		{"domain info", true},
		{"instance", false}, // the key is that of one instance
		{"info", false},
		{"instance info", false},
		{"secret", true}, // it alone stands before the leaked key
		{"uses", true},
		{"facts", true},
		{"appid", true},
	}
	checkModel(t, rows, func(p protocol) (string, int) {
		total := 0
		for _, uses := range []uint8{1, 2} {
			m := eModel{p, uses}
			flaw, visited := explore(eWorld{}, m.next, m.flaw)
			if total += visited; flaw != "" {
				return flaw, total
			}
		}
		return "", total
	})
	done := func(w *eWorld) string {
		if w.clients[0].app == pCore && w.clients[eLeaked].app == pOther {
			return "both have an app"
		}
		return ""
	}
	m := eModel{protocol{}, 2}
	if got, _ := explore(eWorld{}, m.next, done); got == "" {
		t.Error("the clients never get their apps")
	}
}
