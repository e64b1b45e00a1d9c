package guest

import "banger/internal/guestwire"

func (a *agent) put(s *guestwire.Stream) { s.Fail("unknown_method", "not yet") }
func (a *agent) get(s *guestwire.Stream) { s.Fail("unknown_method", "not yet") }
