# The guest's commits since $3, as mail: a line that says whether there is work
# which is in no commit, and the mails. $4 is the commit that was brought in.
head=$(GIT_DIR=$here/.git git rev-parse --verify --quiet 'HEAD^{commit}') || exit 5
from=$(GIT_DIR=$here/.git git rev-parse --verify --quiet --end-of-options "$3^{commit}") || exit 5
[ "$(git rev-parse --verify --quiet "$4^{tree}")" = "$2" ] || exit 6
git merge-base --is-ancestor "$from" "$head" || exit 7
[ -z "$(git rev-list --max-count=1 --merges "$from..$head")" ] || exit 8
[ "$(git rev-parse "$head^{tree}")" = "$now" ] && echo clean || echo dirty
# How the guest likes its mails does not matter here.
sed -e '/^.include.$/,/path/d' "$own/config" >"$own/config.new"
mv "$own/config.new" "$own/config"
GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 git format-patch --stdout --binary --full-index --no-renames --no-color \
	--no-ext-diff --no-textconv --no-signature --no-numbered --no-attach --no-notes "$from..$head"
