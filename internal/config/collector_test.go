package config

import "testing"

func TestPercent(t *testing.T) {
	for _, tt := range []struct {
		live   uint64
		growth int
		want   int
	}{
		{0, 400, 400},
		{1 << 20, 400, 400},
		{12 << 20, 400, 400},
		{24 << 20, 400, 200},
		{24 << 20, 1000, 200},
		{96 << 20, 400, 50},
		{1 << 30, 400, leastGrowth},
	} {
		if got := percent(tt.live, tt.growth); got != tt.want {
			t.Errorf("%d MiB, at most %d %%: got %d %%, want %d", tt.live>>20, tt.growth, got, tt.want)
		}
	}
}
