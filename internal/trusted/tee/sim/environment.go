package sim

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxEnvironment is the most bytes of a measured configuration.
const maxEnvironment = 64 << 10

// ErrEnvironment is wrapped by the errors about a measured configuration.
var ErrEnvironment = errors.New("the measured configuration is malformed")

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ParseEnvironment reads a measured configuration: lines of NAME=VALUE in UTF-8,
// each ended by a line feed, names not twice. There are no quotes, no comments
// and no blank lines; a value may be empty. Errors: ErrEnvironment.
func ParseEnvironment(b []byte) (map[string]string, error) {
	values := map[string]string{}
	text := string(b)
	if !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\r") {
		return nil, fmt.Errorf("%w: it is not lines of text", ErrEnvironment)
	}
	for number := 1; text != ""; number++ {
		line, rest, ended := strings.Cut(text, "\n")
		name, value, found := strings.Cut(line, "=")
		if !ended || !found || !variable.MatchString(name) {
			return nil, fmt.Errorf("%w: line %d is not NAME=VALUE", ErrEnvironment, number)
		}
		if _, twice := values[name]; twice {
			return nil, fmt.Errorf("%w: line %d sets %s again", ErrEnvironment, number, name)
		}
		values[name], text = value, rest
	}
	return values, nil
}
