package vmm

import (
	"bytes"
	"strings"
	"testing"
)

func TestLastLineIsTheLastThatSaysSomething(t *testing.T) {
	for _, c := range []struct {
		written []string
		less    string
		want    string
	}{
		{[]string{"one\ntwo\n\n  \n"}, "", "two"},
		{[]string{"one\ntw", "o"}, "", "two"},
		{[]string{"one\nworse\n"}, "worse", "one"},
		{[]string{"worse\n"}, "worse", "worse"},
		{[]string{"a\xffb\n"}, "", "a?b"},
		{[]string{strings.Repeat("x", 700), strings.Repeat("x", 700) + "\n"}, "", strings.Repeat("x", MaxLogLine)},
		{nil, "", ""},
	} {
		var l LastLine
		if c.less != "" {
			l.Less = func(line []byte) bool { return bytes.Equal(line, []byte(c.less)) }
		}
		for _, text := range c.written {
			if n, err := l.Write([]byte(text)); n != len(text) || err != nil {
				t.Fatal(n, err)
			}
		}
		if got := l.String(); got != c.want {
			t.Errorf("of %.40q it keeps %.40q, want %.40q", c.written, got, c.want)
		}
	}
}
