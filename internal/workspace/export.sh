# What differs between $base and $now: a line with their names, and the pack of both
# sides of it, commits of other repositories excepted. Files that are named only come
# as they are, before it; then the line says so.
echo "$base $now${named:+ files}"
[ "$base" != "$now" ] || exit 0
git diff-tree -r -t --raw --no-abbrev --no-renames "$base" "$now" >"$own/differ" || exit 4
new='04|10|12'
if [ -n "$named" ]; then
	# Some are gone; and a tar that knows no such options sends the end of an archive.
	tar -c -b 128 --numeric-owner --no-recursion --null -T "$own/changed" -T "$own/new" 2>/dev/null || head -c 1024 /dev/zero
	new=04
fi
# By their modes: trees, files and links. One sed for all of it takes a second.
{
	echo "$base"
	echo "$now"
	grep -E '^:(04|10|12)' "$own/differ" | cut -d ' ' -f 3
	grep -E "^:[0-7]+ ($new)" "$own/differ" | cut -d ' ' -f 4
} | git -c core.bigFileThreshold=1 pack-objects -q --stdout --window=0
