# Which files differ between $base and $now.
git diff-tree -r -z --raw --no-abbrev --no-renames "$base" "$now" || exit 4
