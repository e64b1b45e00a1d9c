// Package reach is what a guest may reach, and what is known of what it did: a
// policy and its rules, what is refused in every mode, the record of one destination,
// the counters, and the card all of that goes through.
//
// It only computes. Who asks for a network, reports on one or checks a rule needs
// nothing else; the network itself is vnet's.
package reach
