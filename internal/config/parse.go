package config

import (
	"errors"
	"fmt"
	"strings"

	"banger"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// entry is one value of the file. Tables are spelled out in the key, as in
// "vm_defaults.vcpu" and "file_sync[0].host".
type entry struct {
	key   string
	line  int
	value any // string, int64, bool, float64, a date, []any; tableHead where a table begins
}

// tableHead is the value of an entry for a table's own line: an unknown table
// is wrong without any key in it, too.
type tableHead struct{}

// bad says what is wrong with the entry.
func (e entry) bad(path string, err error) *banger.Error {
	return badLine(path, e.line, e.key, err)
}

func badLine(path string, line int, key string, err error) *banger.Error {
	return banger.Errorf(banger.Conflict, "bad configuration: %s line %d: %s: %w", path, line, key, err)
}

// parse gives the values of a file in the order they stand there. The library
// decodes them; its parser, walked beside, is what knows their lines.
func parse(path string, text []byte) ([]entry, error) {
	var tree map[string]any
	if err := toml.Unmarshal(text, &tree); err != nil {
		return nil, syntaxError(path, err)
	}
	w := walker{path: path, tree: tree, tables: map[string]int{}}
	w.parser.Reset(text)
	for w.parser.NextExpression() {
		w.expression(w.parser.Expression())
	}
	if err := w.parser.Error(); err != nil {
		return nil, syntaxError(path, err)
	}
	return w.entries, nil
}

func syntaxError(path string, err error) error {
	var decode *toml.DecodeError
	if !errors.As(err, &decode) {
		return banger.Errorf(banger.Conflict, "bad configuration: %s: %w", path, err)
	}
	line, column := decode.Position()
	at := fmt.Sprintf("column %d", column)
	if key := strings.Join(decode.Key(), "."); key != "" {
		at = key
	}
	return badLine(path, line, at, errors.New(strings.TrimPrefix(decode.Error(), "toml: ")))
}

type walker struct {
	path    string
	parser  unstable.Parser
	tree    any            // the decoded file
	table   []any          // where keys are put now: names and indexes
	tables  map[string]int // how often each [[table]] was begun
	entries []entry
}

func (w *walker) expression(n *unstable.Node) {
	switch n.Kind {
	case unstable.Table:
		w.begin(n)
	case unstable.ArrayTable:
		w.begin(n, w.tables[spellKey(n)])
		w.tables[spellKey(n)]++
	case unstable.KeyValue:
		w.keyValue(w.table, n)
	}
}

func (w *walker) begin(n *unstable.Node, index ...any) {
	names, raw := keyOf(n)
	w.table = append(names, index...)
	w.entries = append(w.entries, entry{spell(w.table), w.parser.Shape(raw).Start.Line, tableHead{}})
}

// keyValue adds a value, or all values of an inline table or a list of them.
func (w *walker) keyValue(table []any, n *unstable.Node) {
	names, raw := keyOf(n)
	at := append(append([]any(nil), table...), names...)
	w.value(at, n.Value(), w.parser.Shape(raw).Start.Line)
}

func (w *walker) value(at []any, n *unstable.Node, line int) {
	switch {
	case n.Kind == unstable.InlineTable:
		for it := n.Children(); it.Next(); {
			w.keyValue(at, it.Node())
		}
	case n.Kind == unstable.Array && holdsTables(n):
		i := 0
		for it := n.Children(); it.Next(); {
			if it.Node().Kind == unstable.Comment {
				continue
			}
			w.value(append(append([]any(nil), at...), i), it.Node(), line)
			i++
		}
	default:
		w.entries = append(w.entries, entry{spell(at), line, lookup(w.tree, at)})
	}
}

func holdsTables(n *unstable.Node) bool {
	for it := n.Children(); it.Next(); {
		if it.Node().Kind == unstable.InlineTable {
			return true
		}
	}
	return false
}

// keyOf gives a key's names and where its first one stands.
func keyOf(n *unstable.Node) (names []any, first unstable.Range) {
	for it := n.Key(); it.Next(); {
		if names == nil {
			first = it.Node().Raw
		}
		names = append(names, string(it.Node().Data))
	}
	return names, first
}

func spellKey(n *unstable.Node) string {
	names, _ := keyOf(n)
	return spell(names)
}

func spell(at []any) string {
	var b strings.Builder
	for _, part := range at {
		switch part := part.(type) {
		case int:
			fmt.Fprintf(&b, "[%d]", part)
		case string:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(part)
		}
	}
	return b.String()
}

func lookup(tree any, at []any) any {
	for _, part := range at {
		switch t := tree.(type) {
		case map[string]any:
			name, _ := part.(string)
			tree = t[name]
		case []any:
			i, ok := part.(int)
			if !ok || i >= len(t) {
				return nil
			}
			tree = t[i]
		default:
			return nil
		}
	}
	return tree
}
