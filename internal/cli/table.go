package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
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
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return err
	}
	_, err := v.Out.Write(escapeC1(text.Bytes()))
	return err
}

// escapeC1 spells the control characters that JSON allows in a string and a terminal
// may obey.
func escapeC1(text []byte) []byte {
	isC1 := func(r rune) bool { return r >= 0x7f && r < 0xa0 }
	if bytes.IndexFunc(text, isC1) < 0 {
		return text
	}
	var out []byte
	for _, r := range string(text) { // what is no UTF-8 the encoder has replaced
		if isC1(r) {
			out = fmt.Appendf(out, `\u%04x`, r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}
