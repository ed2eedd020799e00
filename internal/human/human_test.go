package human

import (
	"testing"
	"time"
)

func TestNumbers(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{Count(0), "0"}, {Count(7), "7"}, {Count(999), "999"}, {Count(1000), "1.00k"}, {Count(12345), "12.3k"}, {Count(999_600), "1.00M"},
		{Bytes(0), "0 B"}, {Bytes(512), "512 B"}, {Bytes(1536), "1.50 KiB"}, {Bytes(34 << 20), "34.0 MiB"}, {Bytes(1023), "1.00 KiB"},
		{Bytes(1 << 62), "4096 PiB"},
		{Rate(0), "0"}, {Rate(0.2), "0.20"}, {Rate(45.21), "45.2"}, {Rate(1200), "1.20k"},
		{Latency(80e-6), "80 µs"}, {Latency(1.2e-3), "1.20 ms"}, {Latency(45e-3), "45.0 ms"}, {Latency(2.05), "2.05 s"}, {Latency(12.3), "12.3 s"},
		{Duration(4 * time.Second), "4s"}, {Duration(125 * time.Second), "2m05s"}, {Duration(3*time.Hour + 12*time.Minute), "3h12m"},
		{Duration(196 * time.Hour), "8d04h"}, {Duration(-time.Second), "0s"}, {Seconds(61.9), "1m01s"},
		{Printable("a.example\x1b[2J\u202e\n"), "a.example?[2J??"}, {Printable("größe 中"), "größe 中"},
	} {
		if tc.got != tc.want {
			t.Errorf("got %q, want %q", tc.got, tc.want)
		}
	}
}
