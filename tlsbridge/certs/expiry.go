package certs

import (
	"fmt"
	"time"

	"awe4lb/tlsbridge"
)

// warnDays are the days before its end at which a certificate is warned of.
var warnDays = []int{30, 14, 7, 3, 1}

// stage returns how many of the warnings a certificate has come to: 0 is none, len(warnDays)+1 that it has expired. A
// warning counts only where the days are less than a third of the certificate's life: those for 90 days are replaced a
// month before they end, and those for a day are born a day before.
func stage(c *tlsbridge.Certificate, now time.Time) int {
	if !now.Before(c.NotAfter) {
		return len(warnDays) + 1
	}
	left, life := c.NotAfter.Sub(now), c.NotAfter.Sub(c.Leaf().NotBefore)
	at := 0
	for i, days := range warnDays {
		if d := time.Duration(days) * 24 * time.Hour; left <= d && d < life/3 {
			at = i + 1
		}
	}
	return at
}

// ends says when a certificate ends, if that is near, and "" if not.
func ends(c *tlsbridge.Certificate, now time.Time) string {
	switch at := stage(c, now); {
	case at > len(warnDays):
		return "expired at " + day(c.NotAfter)
	case at > 0:
		return fmt.Sprintf("expires in %s, at %s", daysLeft(c, now), day(c.NotAfter))
	}
	return ""
}

func daysLeft(c *tlsbridge.Certificate, now time.Time) string {
	left := c.NotAfter.Sub(now)
	if left < 48*time.Hour {
		return fmt.Sprintf("%d hours", int(left.Hours()))
	}
	return fmt.Sprintf("%d days", int(left.Hours()/24))
}

// told is what has been said of a certificate.
type told struct {
	stage int
	used  bool // the certificate is in use
}

// expiries warns of certificates in use that end: once at each stage.
func (k *Keeper) expiries(now time.Time) {
	for _, t := range k.told {
		t.used = false
	}
	for _, sv := range k.set.Servers {
		for _, c := range sv.composed {
			k.expiry(c.certificate, []any{"frontend", sv.name, "file", c.file()}, now)
		}
	}
	for name, p := range k.set.pools {
		if p.own != nil {
			k.expiry(p.own, []any{"pool", name, "file", p.table.Cert}, now)
		}
	}
	for key, t := range k.told {
		if !t.used {
			delete(k.told, key)
		}
	}
}

func (k *Keeper) expiry(c *tlsbridge.Certificate, attrs []any, now time.Time) {
	at := stage(c, now)
	if at == 0 {
		return
	}
	key := c.Fingerprint()
	t := k.told[key]
	if t == nil {
		t = new(told)
		k.told[key] = t
	}
	t.used = true
	if at <= t.stage {
		return
	}
	t.stage = at
	attrs = append(attrs, "names", names(c), "not_after", c.NotAfter)
	if at > len(warnDays) {
		k.log.Error("certificate has EXPIRED: clients refuse it", attrs...)
	} else {
		k.log.Warn("certificate expires in "+daysLeft(c, now), attrs...)
	}
}

// file returns where a certificate comes from, for the log.
func (c *composed) file() string {
	if c.pair == nil {
		return "(acme)"
	}
	return c.pair.key.cert
}
