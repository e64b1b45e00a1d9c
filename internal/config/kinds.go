package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// wrong says what a value should have been.
func wrong(want string, value any) error {
	if s, ok := value.(string); ok {
		return fmt.Errorf("it must be %s, not %q", want, s)
	}
	return fmt.Errorf("it must be %s, not %v", want, value)
}

func text(name string, field func(*Config) *string, check func(string) error) key {
	return key{
		name,
		func(c *Config, value any, _ Host) error {
			s, ok := value.(string)
			if !ok {
				return wrong("a string", value)
			}
			if err := check(s); err != nil {
				return err
			}
			*field(c) = s
			return nil
		},
		func(c *Config) string { return *field(c) },
	}
}

func oneOf(name string, field func(*Config) *string, values ...string) key {
	return text(name, field, func(s string) error {
		if !slices.Contains(values, s) {
			return wrong("one of "+strings.Join(values, ", "), s)
		}
		return nil
	})
}

// file is a path; "" stands for what is used without one.
func file(name string, field func(*Config) *string) key {
	return key{
		name,
		func(c *Config, value any, host Host) error {
			s, ok := value.(string)
			if !ok {
				return wrong("a path", value)
			}
			expanded, err := expand(s, host.Home)
			if err != nil {
				return err
			}
			*field(c) = expanded
			return nil
		},
		func(c *Config) string { return *field(c) },
	}
}

// expand reads a path that is absolute or begins with ~/.
func expand(s, home string) (string, error) {
	switch {
	case s == "":
		return "", nil
	case filepath.IsAbs(s):
		return filepath.Clean(s), nil
	case !strings.HasPrefix(s, "~/"):
		return "", wrong("a path that is absolute or begins with ~/", s)
	case !filepath.IsAbs(home):
		return "", errors.New("there is no home directory that ~ could stand for: $HOME is not set")
	}
	return filepath.Join(home, s[2:]), nil
}

// duration is a time such as "10s"; 0 is allowed where least is.
func duration(name string, field func(*Config) *time.Duration, least time.Duration) key {
	return key{
		name,
		func(c *Config, value any, _ Host) error {
			s, ok := value.(string)
			if !ok {
				return wrong(`a time such as "10s" or "24h"`, value)
			}
			d, err := time.ParseDuration(s)
			if err != nil || d < least {
				return wrong(fmt.Sprintf(`a time such as "10s" or "24h", of at least %s`, least), value)
			}
			*field(c) = d
			return nil
		},
		func(c *Config) string { return field(c).String() },
	}
}

func flag(name string, field func(*Config) *bool) key {
	return key{
		name,
		func(c *Config, value any, _ Host) error {
			b, ok := value.(bool)
			if !ok {
				return wrong("true or false", value)
			}
			*field(c) = b
			return nil
		},
		func(c *Config) string { return strconv.FormatBool(*field(c)) },
	}
}

// checkNetwork accepts a CIDR, or three octets, which mean a /24.
func checkNetwork(s string) error {
	_, err := parseNetwork(s)
	return err
}

func parseNetwork(s string) (netip.Prefix, error) {
	cidr := s
	if strings.Count(s, ".") == 2 && !strings.Contains(s, "/") {
		cidr += ".0/24"
	}
	p, err := netip.ParsePrefix(cidr)
	if err != nil || !p.Addr().Is4() || p.Bits() > 30 {
		return p, wrong(`an IPv4 network of at least 4 addresses, such as "10.77.0.0/16"`, s)
	}
	return p.Masked(), nil
}

// checkLoopback accepts two octets of 127/8.
func checkLoopback(s string) error {
	second, found := strings.CutPrefix(s, "127.")
	n, err := strconv.Atoi(second)
	if !found || err != nil || n < 1 || n > 254 || strconv.Itoa(n) != second {
		return wrong(`two numbers such as "127.77"`, s)
	}
	return nil
}

func checkAddress(s string) error {
	if s == "" {
		return nil
	}
	if _, err := netip.ParseAddr(s); err != nil {
		return wrong(`an IP address such as "9.9.9.9"`, s)
	}
	return nil
}
