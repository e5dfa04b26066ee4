package fair

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// script runs steps at a gate: "a" has user a ask for a place, "-a" gives one of
// theirs back. It returns who got places in which order, and who was refused, as "!a".
func script(t *testing.T, l Limits, steps ...string) (got []string) {
	synctest.Test(t, func(t *testing.T) {
		g := New[string](l)
		var mu sync.Mutex
		say := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, s)
		}
		open := map[string]int{}
		for _, step := range steps {
			if user, ok := strings.CutPrefix(step, "-"); ok {
				g.Leave(user)
			} else {
				go func() {
					if !g.Enter(step) {
						say("!" + step)
						return
					}
					say(step)
				}()
			}
			synctest.Wait()
		}
		for _, s := range got { // give all back that is taken, until nobody waits
			if !strings.HasPrefix(s, "!") {
				open[s]++
			}
		}
		for _, step := range steps {
			if user, ok := strings.CutPrefix(step, "-"); ok {
				open[user]--
			}
		}
		told := len(got)
		for {
			user := ""
			for u, n := range open {
				if n > 0 {
					user = u
				}
			}
			if user == "" {
				break
			}
			open[user]--
			g.Leave(user)
			synctest.Wait()
			for _, s := range got[told:] {
				open[s]++
			}
			told = len(got)
		}
		if s := g.Stats(); s.Taken != 0 || s.Waiting != 0 || len(g.turns.users) != 0 || len(g.turns.next) != 0 {
			t.Errorf("gate at the end: %+v, %d users, %d turns", s, len(g.turns.users), len(g.turns.next))
		}
	})
	return got
}

func TestGate(t *testing.T) {
	two := Limits{Places: 2, Each: 2, Waiting: 8, Queue: 8}
	one := Limits{Places: 1, Each: 1, Waiting: 4, Queue: 2}
	for _, tt := range []struct {
		name   string
		limits Limits
		steps  string
		want   string // a prefix of who got places, in order
	}{
		{"free places", two, "a b", "a b"},
		{"one user takes all", two, "a a -a -a", "a a"},
		{"in the order they came", one, "a a a -a -a -a", "a a a"},
		{"in turns", Limits{1, 1, 9, 9}, "a a a a b -a -b -a -a -a", "a b a a a"},
		{"each of three in turn", Limits{1, 1, 9, 9}, "a a a b b c c -a -b -c -a", "a b c a b"},
		{"a share is left to others", Limits{3, 2, 9, 9}, "a a a b", "a a b"},
		{"and is not taken later either", Limits{3, 2, 9, 9}, "a a a b -b b", "a a b b"},
		{"one who has left can have more", Limits{3, 2, 9, 9}, "a a a b -a", "a a b a"},
		{"a full queue of one", one, "a a a a", "a !a"},
		{"which is not others'", one, "a a a a b -a -b", "a !a b a"},
		{"a full queue of all", Limits{1, 1, 2, 2}, "a b c d", "a !d"},
		{"refused while others have all places", Limits{1, 1, 1, 1}, "a b c", "a !c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(script(t, tt.limits, strings.Fields(tt.steps)...), " ")
			if got != tt.want && !strings.HasPrefix(got, tt.want+" ") {
				t.Errorf("places: got %q, want %q first", got, tt.want)
			}
		})
	}
}

// Many goroutines of several users: bounds hold at every moment, and nobody is
// forgotten.
func TestGateBounds(t *testing.T) {
	l := Limits{Places: 4, Each: 3, Waiting: 1000, Queue: 1000}
	g := New[int](l)
	var mu sync.Mutex
	inside := map[int]int{}
	var wrong []string
	count := func(user, by int) {
		mu.Lock()
		defer mu.Unlock()
		inside[user] += by
		total := 0
		for _, n := range inside {
			total += n
		}
		if total > l.Places || inside[user] > l.Each {
			wrong = append(wrong, fmt.Sprint(inside))
		}
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			for range 200 {
				if !g.Enter(i % 5) {
					t.Error("Enter: refused with room")
					return
				}
				count(i%5, 1)
				count(i%5, -1)
				g.Leave(i % 5)
			}
		})
	}
	wg.Wait()
	if len(wrong) > 0 {
		t.Errorf("inside at some moment: %v", slices.Compact(wrong)[0])
	}
	if s := g.Stats(); s.Taken != 0 || s.Waiting != 0 || s.Refused != 0 || len(g.turns.users) != 0 {
		t.Errorf("gate at the end: %+v, %d users", s, len(g.turns.users))
	}
}

// A tenant with a thousand requests in the queue holds up another one by one of them.
func TestGateFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New[string](Limits{Places: 1, Each: 1, Waiting: 2000, Queue: 1500})
		served := 0
		for range 1000 {
			go func() {
				g.Enter("noisy")
				served++
			}()
			synctest.Wait()
		}
		before := -1
		go func() {
			g.Enter("quiet")
			before = served
		}()
		synctest.Wait()
		for before < 0 {
			g.Leave("noisy")
			synctest.Wait()
		}
		if before > 2 {
			t.Errorf("the quiet one came after %d of the noisy one, want at most 2", before)
		}
		g.Leave("quiet")
		for synctest.Wait(); g.Stats().Taken > 0; synctest.Wait() {
			g.Leave("noisy")
		}
	})
}

// A breath is drawn once in a millisecond, by one of those who could.
func TestBreather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Breather
		began := time.Now()
		for _, tt := range []struct{ pass, want time.Duration }{
			{0, breathTime}, {0, 0}, {breathEvery / 2, 0}, {breathEvery / 2, breathTime}, {0, 0}, {5 * breathEvery, breathTime},
		} {
			time.Sleep(tt.pass) // the clock of the bubble
			from := time.Now()
			b.Breathe()
			if took := time.Since(from); took != tt.want {
				t.Errorf("Breathe %v after the start: took %v, want %v", from.Sub(began), took, tt.want)
			}
		}
	})
}

func BenchmarkGate(b *testing.B) {
	g := New[[16]byte](Limits{Places: 64, Each: 48, Waiting: 64, Queue: 64})
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			g.Enter([16]byte{1})
			g.Leave([16]byte{1})
		}
	})
}
