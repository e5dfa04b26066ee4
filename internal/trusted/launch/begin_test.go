package launch

import (
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

func settle(t tee.Platform, host config.Core, getenv func(string) string) (config.Core, error) {
	return Settle(t, host, config.LoadCore, getenv)
}

type fixedPlatform struct {
	tee.Platform
	environment map[string]string
}

func (p fixedPlatform) Environment() map[string]string { return p.environment }

func TestMeasuredSettingsWin(t *testing.T) {
	host := map[string]string{"EHSM_CORE_SIM": "/s", "EHSM_CORE_KEYS": "99", "EHSM_CORE_APPS": "98", "EHSM_CORE_SEEN": "2000"}
	getenv := func(name string) string { return host[name] }
	settings, err := config.LoadCore(getenv)
	if err != nil {
		t.Fatal(err)
	}
	got, err := settle(fixedPlatform{environment: map[string]string{"EHSM_CORE_KEYS": "100", "EHSM_CORE_SEEN": "", "EHSM_CORE_PLATFORM": "sim"}}, settings, getenv)
	if err != nil || got.Keys != 100 || got.Apps != 98 || got.Seen != 262144 {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := settle(fixedPlatform{}.Platform, settings, getenv); err != nil || got != settings {
		t.Errorf("a platform without measured settings: got %+v, %v", got, err)
	}
	for name, row := range map[string]struct {
		environment map[string]string
		want        error
	}{
		"another platform": {map[string]string{"EHSM_CORE_PLATFORM": "gramine"}, ErrMeasured},
		"another daemon":   {map[string]string{"EHSM_CORE_SIM": "/other"}, ErrMeasured},
		"no daemon":        {map[string]string{"EHSM_CORE_SIM": ""}, config.ErrSetting},
		"malformed":        {map[string]string{"EHSM_CORE_KEYS": "many"}, config.ErrSetting},
	} {
		if _, err := settle(fixedPlatform{environment: row.environment}, settings, getenv); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
}
