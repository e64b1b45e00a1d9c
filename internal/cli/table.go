package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
)

// table collects rows and prints them in aligned columns.
type table struct {
	header []string
	rows   [][]string
}

func newTable(header ...string) *table { return &table{header: header} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// print writes the table. Empty cells become "-", so that every row has as
// many words as the header where no cell holds a blank.
func (v *voice) print(t *table) {
	w := tabwriter.NewWriter(v.Out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, strings.Join(t.header, "\t"))
	for _, r := range t.rows {
		cells := make([]string, len(r))
		for i, c := range r {
			if c == "" {
				c = "-"
			}
			cells[i] = oneLine(c)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	w.Flush()
}

// blanks is made once: making it costs more than a cell does.
var blanks = strings.NewReplacer("\n", " ", "\t", " ")

// oneLine makes a cell of text from anywhere.
func oneLine(s string) string { return blanks.Replace(printable(s)) }

// json prints any value.
func (v *voice) json(value any) error {
	e := json.NewEncoder(v.Out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(value)
}
