// Package workspace carries a git repository into a guest, and what was done
// there back out.
//
// Git on the host runs here, in the process of the person who asked, and only
// on repositories of the host: with a scrubbed environment, without hooks and
// monitors, and never on anything that a guest wrote but for objects, which are
// named anew by their content in a repository of their own. What is asked of a guest
// goes through Guest. The package knows neither VMs nor shims nor the ledger.
//
// # What a guest holds
//
// The clone in a guest is made on the host and arrives as files, so that
// nothing needs to run there. Beside what any clone has, its git directory
// holds
//
//	refs/banger/base   a commit whose tree is the tree as it was brought in
//	banger/index       an index of that tree, with the times and sizes of its files
//	banger/since       an empty file that is younger than all of these
//	banger/source      the path of the repository it came from
//
// What the guest did since is the difference to that commit's tree. An index for
// looking starts as a copy of banger/index, which spares reading unchanged files.
// A clone is whole once it has banger/since: that comes last.
package workspace
