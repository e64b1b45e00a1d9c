package store

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"
)

// formatTime is how instants are written.
func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// Rows of other hands may lack the T or the offset.
var timeLayouts = []string{time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04:05", time.DateTime}

// parseTime reads an instant with any offset. What cannot be read is the zero
// time: a row with a broken date must still be listed.
func parseTime(s string) time.Time {
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

// decode reads a JSON column into v, which holds the defaults. Fields that
// are missing, null or of another type keep them, and so does everything
// where the text is no object at all.
func decode[T any](text string, v *T) {
	if text == "" || text == "{}" {
		return
	}
	whole := *v
	if json.Unmarshal([]byte(text), &whole) == nil {
		*v = whole
		return
	}
	// One field is of another type: take the others one by one.
	var raw map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &raw) != nil {
		return
	}
	fields := reflect.ValueOf(v).Elem()
	for i := range fields.NumField() {
		field := reflect.New(fields.Type().Field(i).Type)
		text, found := raw[key(fields.Type().Field(i))]
		if found && string(text) != "null" && json.Unmarshal(text, field.Interface()) == nil {
			fields.Field(i).Set(field.Elem())
		}
	}
}

// encode writes v into a JSON column that holds old and keeps every key of it
// that v's type does not know.
func encode(old string, v any) (string, error) {
	out := map[string]json.RawMessage{}
	if json.Unmarshal([]byte(old), &out) != nil || out == nil {
		out = map[string]json.RawMessage{}
	}
	for i := range reflect.TypeOf(v).NumField() {
		delete(out, key(reflect.TypeOf(v).Field(i)))
	}
	known, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(known, &out); err != nil {
		return "", err
	}
	all, err := json.Marshal(out)
	return string(all), err
}

// key is the name of a field in JSON.
func key(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "" {
		return f.Name
	}
	return name
}
