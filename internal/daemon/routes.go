package daemon

import (
	"github.com/danielgtaylor/huma/v2"

	"banger"
	"banger/internal/api"
)

// routes is the API on one screen. Names are what operations and the log
// call it by.
func (d *daemon) routes(r huma.API) {
	get(r, d, "/version", "daemon.version", "Say which build answers", d.version)
	get(r, d, "/config", "config.show", "Every key of the configuration, its value and origin", d.configuration)
	post(r, d, "/daemon/stop", "daemon.stop", "End the daemon; VMs go on", d.stop)

	get(r, d, "/vms", "vm.list", "List all VMs", d.listVMs)
	get(r, d, "/vms/{ref}", "vm.show", "Show a VM", d.showVM)
	patch(r, d, "/vms/{ref}", "vm.change", "Change what is not null", d.changeVM)
	post(r, d, "/vms/{ref}/set", "vm.set", "Change what a VM is and may reach", d.setVM)
	get(r, d, "/vms/{ref}/ports", "vm.ports", "Say where what listens in a guest is on the host", d.vmPorts)
	get(r, d, "/vms/{ref}/net", "vm.net", "Tell what a guest reached and was refused", d.vmNetwork)
	remove(r, d, "/vms/{ref}", "vm.delete", "Delete a VM; none is no error", d.deleteVM)
	stream[api.VM](r, d, "/vms", "vm.create", "Create a VM", d.createVM)
	stream[api.VM](r, d, "/vms/{ref}/start", "vm.start", "Start a VM", d.startVM)
	stream[api.VM](r, d, "/vms/{ref}/stop", "vm.stop", "Stop a VM in good order", d.stopVM)
	stream[api.VM](r, d, "/vms/{ref}/restart", "vm.restart", "Stop a VM and start it", d.restartVM)
	stream[api.VM](r, d, "/vms/{ref}/suspend", "vm.suspend", "Save a VM's memory and free its RAM", d.suspendVM)
	stream[api.Forks](r, d, "/vms/{ref}/fork", "vm.fork", "Copy a VM as it is now", d.forkVM)
	post(r, d, "/vms/{ref}/kill", "vm.kill", "Signal a VM's VMM", d.killVM)
	post(r, d, "/vms/{ref}/pause", "vm.pause", "Halt a VM's CPUs", d.pauseVM)
	post(r, d, "/vms/{ref}/resume", "vm.resume", "Let a VM's CPUs run", d.resumeVM)
	post(r, d, "/ssh", "ssh.keys", "Say where SSH keys are, and see that the user has one", d.sshKeys)
	post(r, d, "/vms/{ref}/ssh", "vm.ssh", "Say what an SSH client of a VM needs, and see that it is there", d.sshVM)
	get(r, d, "/vms/{ref}/health", "vm.health", "Ask a guest how it is", d.vmHealth)
	get(r, d, "/vms/{ref}/stats", "vm.stats", "Sample a VM now", d.vmStats)

	get(r, d, "/vms/{ref}/snapshots", "vm.snapshots", "List the snapshots of a VM", d.listSnapshots)
	stream[banger.Snapshot](r, d, "/vms/{ref}/snapshots", "vm.snapshot", "Keep a VM as it is now", d.createSnapshot)
	stream[api.VM](r, d, "/vms/{ref}/snapshots/{snapshot}/restore", "vm.restore", "Take a VM back to a snapshot", d.restoreSnapshot)
	remove(r, d, "/vms/{ref}/snapshots/{snapshot}", "vm.snapshot.delete", "Delete a snapshot", d.deleteSnapshot)

	stream[api.Image](r, d, "/vms/{ref}/commit", "image.commit", "Make an image of a stopped VM", d.commitImage)

	get(r, d, "/images", "image.list", "List all images", d.listImages)
	get(r, d, "/images/{ref}", "image.show", "Show an image", d.showImage)
	remove(r, d, "/images/{ref}", "image.delete", "Delete an image nothing uses", d.deleteImage)
	stream[api.Image](r, d, "/images/pull", "image.pull", "Get an image of the catalogue or of a registry", d.pullImage)

	patch(r, d, "/images/{ref}", "image.rename", "Give an image another name", d.renameImage)
	stream[api.Image](r, d, "/images/register", "image.register", "Make an image of a file", d.registerImage)
	stream[api.Image](r, d, "/images/import", "image.import", "Make an image of a pack", d.importImage)
	stream[api.Image](r, d, "/images/{ref}/export", "image.export", "Write a pack of an image", d.exportImage)
	stream[api.Image](r, d, "/images/{ref}/promote", "image.promote", "Copy a registered image's file to banger's own", d.promoteImage)

	post(r, d, "/images/cache/prune", "image.cache.prune", "Remove what can be made again and nothing uses", d.pruneCache)

	get(r, d, "/kernels", "kernel.list", "List all kernels", d.listKernels)
	get(r, d, "/kernels/{ref}", "kernel.show", "Show a kernel", d.showKernel)
	remove(r, d, "/kernels/{ref}", "kernel.delete", "Delete a kernel nothing uses", d.deleteKernel)
	stream[api.Kernel](r, d, "/kernels/pull", "kernel.pull", "Get a kernel of the catalogue", d.pullKernel)
	stream[api.Kernel](r, d, "/kernels/import", "kernel.import", "Take a kernel from files", d.importKernel)

	get(r, d, "/operations", "operation.list", "Long work under way or just ended", d.listOperations)
	get(r, d, "/operations/{id}", "operation.show", "Show one operation", d.showOperation)
	remove(r, d, "/operations/{id}", "operation.cancel", "Cancel an operation, which undoes it", d.cancelOperation)
}
