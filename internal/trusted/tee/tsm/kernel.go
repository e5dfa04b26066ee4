package tsm

import (
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// checkKernel refuses kernels before 6.9. From then on Linux stops a
// confidential guest whose random generator it cannot seed with RDRAND ("x86/coco:
// Require seeding RNG with RDRAND on CoCo systems"); earlier ones may go on with
// what the host gives them. Errors: tee.ErrEntropy.
func checkKernel(release string) error {
	var major, minor int
	if n, err := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return fmt.Errorf("%w: kernel release %q: %w", tee.ErrEntropy, release, err)
	}
	if major < 6 || major == 6 && minor < 9 {
		return fmt.Errorf("%w: kernel %d.%d may seed it from the host; use 6.9 or later", tee.ErrEntropy, major, minor)
	}
	return nil
}
