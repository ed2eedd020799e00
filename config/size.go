package config

import (
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes, written in TOML as an integer or as a string such as "64KiB" or "1MiB".
type Size int64

var sizeUnits = []struct {
	name  string
	shift int
}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}}

// String returns s in the largest unit that gives a whole number: "64KiB", "1MiB", "1500".
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && s%(1<<u.shift) == 0 {
			return strconv.FormatInt(int64(s)>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// parseSize reads "65536", "64KiB", "1MiB" or "1GiB"; a value too large to hold becomes the largest there is, for the
// range check to refuse. Where ok is false, fix is what was surely meant, or "".
func parseSize(s string) (size Size, fix string, ok bool) {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	shift, known := 0, digits == s
	for _, u := range sizeUnits {
		switch unit := s[len(digits):]; {
		case unit == u.name:
			shift, known = u.shift, true
		case strings.EqualFold(unit, u.name), strings.EqualFold(unit, u.name[:1]), strings.EqualFold(unit, u.name[:1]+"B"):
			fix = u.name // 1000 or 1024? We do not guess
		}
	}
	number := strings.TrimRight(digits, " ")
	if number == "" || strings.Trim(number, "0123456789") != "" {
		return 0, "", false
	}
	if fix != "" {
		return 0, number + fix, false
	}
	if known && number != digits {
		return 0, number + s[len(digits):], false
	}
	if !known || number != digits {
		return 0, "", false
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n > math.MaxInt64>>shift {
		return math.MaxInt64, "", true
	}
	return Size(n << shift), "", true
}
