package cli

import "github.com/spf13/cobra"

func newVM(a *app) *cobra.Command {
	return newGroup(a, "vm", "Create, run, inspect and remove VMs",
		newRun(a), newCreate(a), newStart(a), newStop(a), newRestart(a), newKill(a), newDelete(a), newPrune(a),
		newList(a), newShow(a), newExec(a), newSSH(a), newCp(a), newLogs(a), newStats(a), newHealth(a), newPing(a),
		newRename(a), newSet(a), newNet(a), newPorts(a), newPause(a), newResume(a), newSuspend(a), newSnapshot(a), newFork(a),
		newWorkspace(a))
}
