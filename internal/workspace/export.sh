# What differs between $base and $now: a line with their names, and the pack of both
# sides of it, commits of other repositories excepted.
echo "$base $now"
[ "$base" != "$now" ] || exit 0
git diff-tree -r -t --raw --no-abbrev --no-renames "$base" "$now" >"$own/differ"
sed -n -e '/^:160000/!s/^:[0-7]* [0-7]* \([0-9a-f]*\) .*/\1/p' "$own/differ" >"$own/wanted"
sed -n -e '/^:[0-7]* 160000/!s/^:[0-7]* [0-7]* [0-9a-f]* \([0-9a-f]*\) .*/\1/p' "$own/differ" >>"$own/wanted"
{ echo "$base"; echo "$now"; sed '/^0*$/d' "$own/wanted"; } | git pack-objects -q --stdout --window=0
