# The first half of what is run in a guest for an export. It looks at the files
# through an index and a git directory of its own, so that nothing of the guest's
# repository changes and none of its hooks, filters and monitors runs. What it says
# of the ends of lines counts, as it did when the files were brought in.
#
# $1 is the repository, $2 the tree that was brought in, $3 a commit to compare
# with instead, or nothing. $5 says that contents are to be objects. Afterwards $base
# and $now are the trees to compare, and git knows the objects of both, but where
# $named is set: then the files that $own/changed and $own/new list are named only.
set -eu
umask 077
command -v git >/dev/null || exit 127
cd "$1" 2>/dev/null && [ -d .git ] || exit 3
[ -f .git/banger/since ] || exit 4 # another repository: leave nothing in it
unset GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_COMMON_DIR GIT_NAMESPACE \
	GIT_CONFIG GIT_CONFIG_COUNT GIT_CONFIG_PARAMETERS GIT_REPLACE_REF_BASE
for left in .git/banger/export.*; do
	[ -d "$left" ] && ! kill -0 "${left##*.}" 2>/dev/null && rm -rf "$left"
done

here=$(pwd -P)
own=$here/.git/banger/export.$$
trap 'rm -rf "$own"' EXIT
trap 'exit 129' HUP INT TERM PIPE
mkdir -p "$own/objects/info" "$own/refs" "$own/info"
echo 'ref: refs/heads/none' >"$own/HEAD"
echo ../../../objects >"$own/objects/info/alternates"
for name in info/exclude info/attributes info/sparse-checkout shallow; do
	[ ! -f ".git/$name" ] || cp ".git/$name" "$own/$name"
done
echo '* -filter' >>"$own/info/attributes"
version=0 extensions=
[ ${#2} -eq 40 ] || version=1 extensions='[extensions]
	objectFormat = sha256'
cat >"$own/config" <<END
[core]
	repositoryFormatVersion = $version
$extensions
[include]
	path = ../../config
[core]
	bare = false
	checkStat = minimal
	trustctime = false
	looseCompression = 0
	fsmonitor = false
	untrackedCache = false
	splitIndex = false
	hooksPath = /dev/null
	safecrlf = false
	fsync = none
[pack]
	threads = 1
	compression = 0
[advice]
	addEmbeddedRepo = false
END
# One pack is made of what was written, since a file for each would take longer;
# and memory that is given back to the kernel after each would come back as pages
# to be cleared. In another locale find and grep take longer.
export LC_ALL=C MALLOC_TOP_PAD_=33554432 MALLOC_TRIM_THRESHOLD_=268435456 MALLOC_MMAP_THRESHOLD_=33554432
sparse=
[ ! -f .git/info/sparse-checkout ] || sparse=yes
export GIT_DIR="$own" GIT_WORK_TREE="$here" GIT_INDEX_FILE="$own/index" GIT_LITERAL_PATHSPECS=1 GIT_NO_REPLACE_OBJECTS=1

base=$2
[ -z "$3" ] || base=$(GIT_DIR=$here/.git git rev-parse --verify --quiet --end-of-options "$3^{tree}") || exit 5
# What the index that was brought in knows of times and sizes tells which files
# were written since, all but those that were given their old time again: these
# are looked for meanwhile, and compared by content. The copy's own time says which
# may have been written just when it was made.
find . ! -type d -newercc .git/banger/since ! -newermc .git/banger/since -print0 -o -type d -path ./.git -prune >"$own/doubtful" 2>/dev/null &
cp -p .git/banger/index "$own/index" 2>/dev/null || git read-tree -m "$2" 2>/dev/null || exit 4
objects=$5$sparse
[ -n "$objects" ] || git ls-files -z -o --exclude-standard >"$own/new"
if ! wait $!; then # a find that does not know of such times
	rm "$own/index"
	git read-tree -m "$2" 2>/dev/null || exit 4
elif [ -s "$own/doubtful" ]; then
	xargs -0 git ls-files -s -z -- <"$own/doubtful" | git update-index -z --index-info
fi

# name puts the files that changed into the index, and makes no objects of them. It
# fails where that takes more than a list of files: of repositories in it, which end
# in a slash, or of paths that lead through a link by now.
name() {
	! tr '\0\n' '\n ' <"$own/new" | grep -q '/$' || return
	git ls-files -z -m >"$own/changed" || return
	cat "$own/changed" "$own/new" | git update-index -z --add --remove --replace --info-only --stdin 2>/dev/null
}
named=
if [ -z "$objects" ] && name; then
	named=yes
else
	git -c core.bigFileThreshold=1 add -A ${sparse:+--sparse}
fi
now=$(git write-tree ${named:+--missing-ok})
