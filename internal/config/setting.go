package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ErrSetting is wrapped by every error about a setting.
var ErrSetting = errors.New("invalid setting")

// A setting is one row of a program's table.
type setting struct {
	name    string // of the environment variable
	normal  string // default, as text
	meaning string // with the unit; shown by --help
	set     func(text string) error
}

// load reads the settings that getenv has, and reports all that are wrong.
func load(table []setting, getenv func(string) string) error {
	var errs []error
	for _, s := range table {
		text := getenv(s.name)
		if text == "" {
			text = s.normal
		}
		if text == "" {
			continue
		}
		if err := s.set(text); err != nil {
			errs = append(errs, fmt.Errorf("%w: %s: %w", ErrSetting, s.name, err))
		}
	}
	return errors.Join(errs...)
}

// describe lists a table for --help.
func describe(table []setting) string {
	var b strings.Builder
	for _, s := range table {
		normal := "no default"
		if s.normal != "" {
			normal = "default " + s.normal
		}
		fmt.Fprintf(&b, "  %s\n        %s (%s)\n", s.name, s.meaning, normal)
	}
	return b.String()
}

// Markdown lists the settings of all programs for docs/settings.md.
func Markdown() string {
	var b strings.Builder
	for _, program := range []struct {
		name  string
		table []setting
	}{
		{"ehsm-kms", new(KMS).table()}, {"ehsm-core", new(Core).table()},
		{"ehsm-dkeycache", new(DKeyCache).table()}, {"ehsm-dkeyserver", new(DKeyServer).table()},
		{"ehsm-hsm", new(HSM).table()},
	} {
		fmt.Fprintf(&b, "## %s\n\n| variable | default | meaning |\n|---|---|---|\n", program.name)
		for _, s := range program.table {
			normal := ""
			if s.normal != "" {
				normal = "`" + s.normal + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", s.name, normal, strings.ReplaceAll(s.meaning, "|", "\\|"))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func text(v *string) func(string) error {
	return func(s string) error { *v = s; return nil }
}

// number takes whole numbers from least on.
func number(v *int, least int) func(string) error {
	return func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < least {
			return fmt.Errorf("want a whole number of at least %d", least)
		}
		*v = n
		return nil
	}
}

// yes takes yes and no.
func yes(v *bool) func(string) error {
	return func(s string) error {
		if *v = s == "yes"; !*v && s != "no" {
			return errors.New("want yes or no")
		}
		return nil
	}
}

// span takes positive durations such as 500ms or 1m30s.
func span(v *time.Duration) func(string) error {
	return func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			return errors.New("want a duration such as 500ms or 1m30s")
		}
		*v = d
		return nil
	}
}

// address takes a stream address.
func address(v *string) func(string) error {
	return func(s string) error {
		*v = s
		_, _, err := ParseAddress(s)
		return err
	}
}

func missing(name, want string) error {
	return fmt.Errorf("%w: %s is not set; %s", ErrSetting, name, want)
}
