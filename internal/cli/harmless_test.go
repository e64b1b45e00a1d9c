package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestGuestsCannotDriveATerminalByTheirLogs(t *testing.T) {
	for said, want := range map[string]string{
		"plain\ttext\r\nand more\n":           "plain\ttext\nand more\n",
		"\x1b[0;32m  OK  \x1b[0m up":          "  OK   up",
		"\x1b]0;title\x07":                    "\uFFFD]0;title\uFFFD",
		"\x1bc\x1b\x1b[2J\x1bP1;2q":           "\uFFFDc\uFFFD\uFFFDP1;2q",
		"password:\rnothing":                  "password:\uFFFDnothing",
		"\u009b31mred \u009d0;t\u009c \x9b1m": "\uFFFD31mred \uFFFD0;t\uFFFD \uFFFD1m",
		"grüße 日本\n":                          "grüße 日本\n",
		"\x1b[31\x07m":                        "\uFFFDm",
	} {
		for _, size := range []int{1, 3, len(said)} {
			var got bytes.Buffer
			h := &harmless{to: &got}
			for at := 0; at < len(said); at += size {
				if _, err := h.Write([]byte(said[at:min(len(said), at+size)])); err != nil {
					t.Fatal(err)
				}
			}
			if got.String() != want {
				t.Errorf("%q in pieces of %d became %q, not %q", said, size, got.String(), want)
			}
		}
	}
}

func TestGuestTextIsRawUnlessToATerminal(t *testing.T) {
	var out bytes.Buffer
	for _, terminal := range []bool{false, true} {
		out.Reset()
		v := &voice{tty: tty{out: terminal}}
		if _, err := v.guestOut(&out).Write([]byte("\x1b[31mred")); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "\x1b"); got == terminal {
			t.Errorf("to a terminal is %v, and it is sent %q", terminal, out.String())
		}
	}
}

func TestJSONHasNoControlCharacters(t *testing.T) {
	said := map[string]string{"a": "x\u009b31m\u007f\x1b é \u00a0"}
	var out bytes.Buffer
	if err := (&voice{Out: &out}).json(said); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimRight(out.String(), "\n"); strings.ReplaceAll(got, "\n", "") != printable(strings.ReplaceAll(got, "\n", "")) {
		t.Errorf("printed %q", got)
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["a"] != said["a"] {
		t.Errorf("read back as %q, %v", back, err)
	}
}
