package cli

import "github.com/spf13/cobra"

func newWorkspace(a *app) *cobra.Command {
	return newGroup(a, "workspace", "Bring repositories into VMs, and work back out",
		newPrepare(a), newWorkspaceStatus(a), newExport(a))
}
