package doctor

// Action is a way to repair something. Each is a command or a call of the API
// that exists for itself: the doctor only says which.
type Action string

// The actions, in the order in which they are to be done.
const (
	Chmod          Action = "chmod"           // take away what others may do with the path Subject
	RestartDaemon  Action = "restart daemon"  // whose start puts right what a crash left
	DeleteVM       Action = "delete vm"       // with the id Subject, whose directory is gone
	RebuildImage   Action = "rebuild image"   // nothing uses
	PullKernel     Action = "pull kernel"     // again, that of a registry as As
	DeleteKernel   Action = "delete kernel"   // with the digest Subject, which nothing boots
	PruneTemplates Action = "prune templates" // they are made again
)

var actions = []Action{Chmod, RestartDaemon, DeleteVM, RebuildImage, PullKernel, DeleteKernel, PruneTemplates}

// Fix is one repair.
type Fix struct {
	Action  Action `json:"action"`
	Subject string `json:"subject,omitempty"`
	As      string `json:"as,omitempty"`
	Does    string `json:"does"` // for people
}

// Plan is all repairs that rows ask for, each once, in order.
func Plan(rows []Row) (plan []Fix) {
	type key struct {
		action  Action
		subject string
	}
	seen := map[key]bool{}
	for _, action := range actions {
		for _, r := range rows {
			if f := r.Fix; f != nil && f.Action == action && !seen[key{f.Action, f.Subject}] {
				seen[key{f.Action, f.Subject}] = true
				plan = append(plan, *f)
			}
		}
	}
	return plan
}

// restart is the repair of whatever the daemon puts right when it starts.
func restart() *Fix {
	return &Fix{Action: RestartDaemon, Does: "restart the daemon, which finishes or undoes what was cut off, and ends and removes what is left of VMs; running VMs go on"}
}
