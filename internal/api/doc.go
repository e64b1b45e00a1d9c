// Package api is what client and daemon say to each other over HTTP: request
// and response types, the stream of events of a long operation, and the form
// of errors.
//
// It holds no behaviour of either side and knows nothing of SQL, shims or
// terminals.
package api

// Routes of the API. REF is a VM's or image's exact id or name or an
// unambiguous prefix of one; clients that act on several resolve them first
// and send ids. Those marked * answer with a stream of Events.
//
//	GET    /v1/openapi.json             this table and its types, for machines
//	GET    /v1/version                  Version
//	GET    /v1/config                   Config: every key, its value and origin
//	POST   /v1/daemon/stop              StopDaemon; refused (busy) while operations run unless forced
//	GET    /v1/vms                      []VM
//	POST   /v1/vms                      CreateVM → VM *
//	GET    /v1/vms/REF                  VM
//	PATCH  /v1/vms/REF                  ChangeVM → VM
//	DELETE /v1/vms/REF?force=BOOL       nothing; deleting what is not there is no error
//	POST   /v1/vms/REF/set              SetVM → ChangedVM
//	GET    /v1/vms/REF/ports            []banger.Port: where what listens in it is on the host
//	GET    /v1/vms/REF/net              Network
//	POST   /v1/vms/REF/start            StartVM → VM *
//	POST   /v1/vms/REF/stop             StopVM → VM *
//	POST   /v1/vms/REF/restart          StopVM → VM *
//	POST   /v1/vms/REF/suspend          VM *
//	POST   /v1/vms/REF/fork             ForkVM → Forks *
//	POST   /v1/vms/REF/kill             KillVM → VM
//	POST   /v1/vms/REF/pause            VM
//	POST   /v1/vms/REF/resume           VM
//	POST   /v1/vms/REF/ssh              SSH; makes the VM's host key and the user's where they are not there
//	POST   /v1/ssh                      SSHKeys; the user's alone
//	GET    /v1/vms/REF/health           guestwire.Health as Health
//	GET    /v1/vms/REF/stats            banger.Stats, sampled now
//	GET    /v1/vms/REF/snapshots        []banger.Snapshot
//	POST   /v1/vms/REF/snapshots        CreateSnapshot → banger.Snapshot *
//	POST   /v1/vms/REF/snapshots/SNAPSHOT/restore  RestoreSnapshot → VM *
//	DELETE /v1/vms/REF/snapshots/SNAPSHOT          nothing
//	GET    /v1/images                   []Image
//	GET    /v1/images/REF               Image
//	DELETE /v1/images/REF               nothing
//	POST   /v1/images/pull              PullImage → Image *
//	PATCH  /v1/images/REF               ChangeImage → Image
//	POST   /v1/images/register          RegisterImage → Image *
//	POST   /v1/images/import            ImportImage → Image *
//	POST   /v1/images/REF/export        ExportImage → Image *
//	POST   /v1/images/REF/promote       → Image *
//	POST   /v1/vms/REF/commit           CommitImage → Image *
//	POST   /v1/images/cache/prune       PruneCache → Pruned
//	GET    /v1/kernels?available=BOOL   []Kernel
//	GET    /v1/kernels/NAME             Kernel
//	DELETE /v1/kernels/NAME             nothing
//	POST   /v1/kernels/pull             PullKernel → Kernel *
//	POST   /v1/kernels/import           ImportKernel → Kernel *
//	GET    /v1/operations               []Operation
//	GET    /v1/operations/ID            Operation
//	DELETE /v1/operations/ID            cancels it
const Prefix = "/v1"
