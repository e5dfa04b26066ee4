package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestPython drives all actions with a client in Python, which was written from
// the contract alone and signs as the existing Python client does.
func TestPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("python3 is needed for this test: ", err) // no skip: users' clients are in Python
	}
	eachTarget(t, func(t *testing.T, g *target) {
		args := []string{"-B", filepath.Join("python", "drive.py"), g.base() + "/ehsm", g.data("tls", "cert.pem")}
		cmd := exec.CommandContext(t.Context(), python, args...)
		cmd.Env, cmd.WaitDelay = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1"), time.Second
		out, err := cmd.CombinedOutput()
		t.Logf("drive.py:\n%s", out)
		if err != nil {
			t.Errorf("drive.py: %v", err)
		}
	})
}
