package banger

import "math/rand/v2"

var adjectives = []string{
	"agile", "amber", "bold", "brave", "breezy", "bright", "brisk", "calm", "clever", "copper",
	"cosmic", "crisp", "dapper", "deft", "eager", "early", "fancy", "fleet", "fresh", "gentle",
	"glad", "golden", "happy", "hardy", "jolly", "keen", "kind", "light", "lively", "lucid",
	"lucky", "mellow", "merry", "mild", "neat", "nimble", "noble", "plucky", "polite", "proud",
	"quick", "quiet", "ready", "rosy", "rustic", "sharp", "silver", "smart", "snowy", "solid",
	"spry", "steady", "sunny", "swift", "tidy", "vivid", "warm", "wise", "witty", "zesty",
}

var nouns = []string{
	"acorn", "anchor", "badger", "beacon", "birch", "bison", "brook", "canyon", "cedar", "comet",
	"coral", "crane", "delta", "dune", "ember", "falcon", "fern", "finch", "fjord", "fox",
	"glacier", "grove", "harbor", "hawk", "heron", "island", "jaguar", "juniper", "kestrel", "lagoon",
	"lark", "lemur", "lynx", "maple", "marten", "meadow", "mesa", "moose", "oak", "orchid",
	"osprey", "otter", "panda", "pebble", "pine", "plover", "puffin", "quartz", "raven", "reef",
	"ridge", "robin", "sparrow", "spruce", "stork", "thistle", "tiger", "walnut", "willow", "wren",
}

// GenerateName makes a VM name of an adjective and a noun, such as
// "brisk-otter", that taken does not hold. When the words run out it adds a
// number.
func GenerateName(taken func(name string) bool) string {
	for range 32 {
		if name := randomPair(); !taken(name) {
			return name
		}
	}
	for {
		if name := randomPair() + "-" + ShortID(NewID())[:4]; !taken(name) {
			return name
		}
	}
}

func randomPair() string {
	return adjectives[rand.IntN(len(adjectives))] + "-" + nouns[rand.IntN(len(nouns))]
}
