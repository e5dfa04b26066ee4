package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// openHome chooses the memory that the domain's keys lie in, and says which. The
// memory of an enclave is protected as a whole, and its run-times have no other
// kind. Elsewhere it is what the kernel protects best. A guest without such memory
// does not start; the simulator, whose keys are in a file, only warns.
func openHome(platform string, stderr io.Writer) (*secret.Home, error) {
	home := secret.NewHeap()
	if platform != "gramine" && platform != "ego" {
		locked, err := secret.NewLocked()
		switch {
		case err == nil:
			home = locked
		case platform == "sim" && errors.Is(err, secret.ErrMemory):
			fmt.Fprintf(stderr, "ehsm-core: warning: %v\n", err)
		default:
			return nil, err
		}
	}
	temporaries := "temporaries are not erased: built without GOEXPERIMENT=runtimesecret"
	if secret.Erases {
		temporaries = "temporaries are erased"
	}
	fmt.Fprintf(stderr, "ehsm-core: keys in %s; %s\n", home.Memory(), temporaries)
	return home, nil
}
