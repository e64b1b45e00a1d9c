package banger

import "time"

// Snapshot is what a VM was at one moment: its disk, and its memory where it
// ran. Its name is unique among those of its VM.
type Snapshot struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
	SizeBytes int64     `json:"size_bytes" doc:"blocks allocated, also those it shares with others"`
	Memory    bool      `json:"memory" doc:"the VM runs again where it was once this is restored"`
	Parent    string    `json:"parent,omitempty" doc:"id of the snapshot the VM was at before"`
}

// RefID and RefName make a Snapshot referable.
func (s Snapshot) RefID() string   { return s.ID }
func (s Snapshot) RefName() string { return s.Name }
