package launch

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// A machine in a directory is no platform any more: whoever opens it would be
// measured by himself.
func TestSimulatorNeedsItsDaemon(t *testing.T) {
	var stderr bytes.Buffer
	_, err := testProgram.openSim(t.Context(), t.TempDir(), &stderr)
	if !errors.Is(err, tee.ErrNoPlatform) || !strings.Contains(err.Error(), "ehsm-simtee serve --dir") {
		t.Errorf("a directory: got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = testProgram.openSim(ctx, filepath.Join(t.TempDir(), "s"), &stderr)
	if !errors.Is(err, tee.ErrNoPlatform) || !strings.Contains(err.Error(), "ehsm-simtee") {
		t.Errorf("no daemon: got %v", err)
	}
}
