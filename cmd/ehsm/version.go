package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
)

func newVersion(a *app) *cobra.Command {
	var server bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program, or of the service",
		Example: "  ehsm version\n  ehsm version --server",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := api.GetVersionResult{Version: api.Version, GitSHA: api.Commit()}
			if server {
				client, err := a.plainClient()
				if err != nil {
					return err
				}
				defer client.Close()
				if v, err = client.Version(cmd.Context()); err != nil {
					return err
				}
			}
			return a.emit(v, fmt.Sprintf("%s (%s)\n", v.Version, cmp.Or(v.GitSHA, "commit unknown")))
		},
	}
	cmd.Flags().BoolVar(&server, "server", false, "ask the service; only TLS vouches for the answer")
	return cmd
}
