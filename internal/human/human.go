// Package human writes numbers and foreign text so that people can read them on a terminal. It knows nothing of awe4lb.
package human

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Count returns n with three digits and a unit: 7, 999, 12.3k, 4.56M.
func Count(n float64) string { return scaled(n, 1000, []string{"", "k", "M", "G", "T", "P"}, false) }

// Bytes returns n with a binary unit: 512 B, 1.50 KiB, 34.0 MiB.
func Bytes(n float64) string {
	return scaled(n, 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}, true)
}

// Rate returns how often a second: 0, 0.20, 45.2, 1.20k.
func Rate(n float64) string {
	if n > 0 && n < 1 {
		return fmt.Sprintf("%.2f", n)
	}
	return Count(n)
}

// scaled divides n by base as often as it takes to have at most three digits before the point.
func scaled(n, base float64, units []string, space bool) string {
	i := 0
	for n >= 999.5 && i < len(units)-1 {
		n /= base
		i++
	}
	format := "%.0f"
	switch {
	case i == 0 && n == float64(int64(n)):
	case n < 9.995:
		format = "%.2f"
	case n < 99.95:
		format = "%.1f"
	}
	s := fmt.Sprintf(format, n)
	if space {
		s += " "
	}
	return s + units[i]
}

// Latency returns seconds as µs, ms or s with three digits: 80 µs, 1.20 ms, 2.05 s.
func Latency(seconds float64) string {
	n, unit := seconds, " s"
	switch {
	case seconds < 0.9995e-3:
		n, unit = seconds*1e6, " µs"
	case seconds < 0.9995:
		n, unit = seconds*1e3, " ms"
	}
	switch {
	case n < 9.995 && unit != " µs":
		return fmt.Sprintf("%.2f%s", n, unit)
	case n < 99.95 && unit != " µs":
		return fmt.Sprintf("%.1f%s", n, unit)
	}
	return fmt.Sprintf("%.0f%s", n, unit)
}

// Duration returns d by its two largest units: 4s, 2m05s, 3h12m, 8d04h. What is negative is 0s.
func Duration(d time.Duration) string {
	s := max(int64(d/time.Second), 0)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
}

// Seconds is Duration of a number of seconds.
func Seconds(s float64) string { return Duration(time.Duration(s * float64(time.Second))) }

// Printable returns s with ? for what could steer a terminal or hide: names that strangers send reach our tables.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
