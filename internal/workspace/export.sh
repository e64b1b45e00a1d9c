# What differs between $base and $now: a line with their names, and the pack of both
# sides of it, commits of other repositories excepted.
echo "$base $now"
[ "$base" != "$now" ] || exit 0
git diff-tree -r -t --raw --no-abbrev --no-renames "$base" "$now" >"$own/differ" || exit 4
{
	echo "$base"
	echo "$now"
	sed -n -e 's/^:160000 \([0-7]*\) [0-9a-f]*/:0 \1 0/' -e 's/^:\([0-7]*\) 160000 \([0-9a-f]*\) [0-9a-f]*/:\1 0 \2 0/' \
		-e 's/^:[0-7]* [0-7]* \([0-9a-f]*\) \([0-9a-f]*\) .*/\1\n\2/' -e 's/^0*\n//' -e 's/\n0*$//' -e '/^[0-9a-f]*[1-9a-f]/p' "$own/differ"
} | git pack-objects -q --stdout --window=0
