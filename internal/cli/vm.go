package cli

import "github.com/spf13/cobra"

// newVM is the group of all that is done with VMs.
func newVM(a *app, asked []string) *cobra.Command {
	vm := newGroup(a, "vm", "Create, run, inspect and remove VMs")
	vm.AddCommand(made(a, asked, []entry{
		{"", "run", newRun}, {"", "create", newCreate}, {"", "start", newStart}, {"", "stop", newStop}, {"", "restart", newRestart}, {"", "kill", newKill},
		{"", "delete", newDelete}, {"", "prune", newPrune}, {"", "list", newList}, {"", "show", newShow}, {"", "exec", newExec}, {"", "ssh", newSSH},
		{"", "cp", newCp}, {"", "logs", newLogs}, {"", "stats", newStats}, {"", "health", newHealth}, {"", "ping", newPing}, {"", "rename", newRename},
		{"", "set", newSet}, {"", "net", newNet}, {"", "ports", newPorts}, {"", "pause", newPause}, {"", "resume", newResume}, {"", "suspend", newSuspend},
		{"", "snapshot", newSnapshot}, {"", "fork", newFork}, {"", "workspace", newWorkspace},
	})...)
	return vm
}
