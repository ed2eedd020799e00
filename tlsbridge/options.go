package tlsbridge

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Protocol is what both ends of TLS may be told about the protocol. Empty fields are the defaults.
type Protocol struct {
	MinVersion string   // "1.0", "1.1", "1.2" or "1.3"; default "1.2"
	MaxVersion string   // the same; default "1.3"
	Ciphers    []string // TLS 1.2 and below, by IANA name; default: those that Go thinks well of. TLS 1.3's are fixed
	Curves     []string // key exchanges, a set without order: see Curves(); default: all that Go thinks well of
	ALPN       []string // application protocols, the preferred first; default: none
}

// OptionError is a mistake in an option.
type OptionError struct {
	Key   string // as in the configuration: min_version, ciphers, …
	Index int    // which element of a list, from 0; -1: the whole
	Text  string // what we got and what we want
}

func (e *OptionError) Error() string { return e.Key + ": " + e.Text }

// mistakes collects OptionErrors.
type mistakes []error

func (m *mistakes) add(key, format string, args ...any) { m.addAt(key, -1, format, args...) }

// addAt is add for an element of a list.
func (m *mistakes) addAt(key string, i int, format string, args ...any) {
	*m = append(*m, &OptionError{key, i, fmt.Sprintf(format, args...)})
}

func (m mistakes) err() error { return errors.Join(m...) }

// apply sets the options in config.
func (p *Protocol) apply(config *tls.Config, m *mistakes) {
	config.MinVersion = parseVersion("min_version", p.MinVersion, tls.VersionTLS12, m)
	config.MaxVersion = parseVersion("max_version", p.MaxVersion, tls.VersionTLS13, m)
	if config.MinVersion > config.MaxVersion {
		m.add("min_version", "got %q, which is above max_version %q", versionName(config.MinVersion), versionName(config.MaxVersion))
	}
	config.CipherSuites = parseCiphers(p.Ciphers, m)
	if len(p.Ciphers) > 0 && config.MinVersion == tls.VersionTLS13 {
		m.add("ciphers", "they have no effect with min_version 1.3: TLS 1.3 has suites of its own, which Go does not let one choose")
	}
	config.CurvePreferences = parseCurves(p.Curves, m)
	if config.MaxVersion < tls.VersionTLS13 && len(config.CurvePreferences) > 0 &&
		!slices.ContainsFunc(config.CurvePreferences, func(id tls.CurveID) bool { return !postQuantum(id) }) {
		m.add("curves", "the post-quantum ones need TLS 1.3, and max_version is %s", versionName(config.MaxVersion))
	}
	config.NextProtos = parseALPN(p.ALPN, m)
	config.DynamicRecordSizingDisabled = true // output is sent by the buffer, not by the record
}

var versions = map[string]uint16{"1.0": tls.VersionTLS10, "1.1": tls.VersionTLS11, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

func versionName(v uint16) string {
	for name, version := range versions {
		if version == v {
			return name
		}
	}
	return fmt.Sprintf("%#x", v)
}

func parseVersion(key, name string, unset uint16, m *mistakes) uint16 {
	if name == "" {
		return unset
	}
	if v, ok := versions[name]; ok {
		return v
	}
	const want = "want 1.0, 1.1, 1.2 or 1.3"
	bare := strings.TrimLeft(strings.ToLower(name), "tlsv ")
	if bare == "1" {
		bare = "1.0"
	}
	switch {
	case strings.Contains(strings.ToLower(name), "ssl"):
		m.add(key, "got %q; %s: Go has no SSL, which is broken", name, want)
	case versions[bare] != 0:
		m.add(key, "got %q; want %q", name, bare)
	default:
		m.add(key, "got %q; %s", name, want)
	}
	return unset
}

// Ciphers returns the names of the cipher suites that can be chosen, for TLS 1.2 and below.
func Ciphers() (names []string) {
	for _, suite := range tls.CipherSuites() {
		if !onlyTLS13(suite) {
			names = append(names, suite.Name)
		}
	}
	return names
}

func onlyTLS13(suite *tls.CipherSuite) bool { return suite.SupportedVersions[0] == tls.VersionTLS13 }

func parseCiphers(names []string, m *mistakes) (ids []uint16) {
	for n, name := range names {
		byName := func(s *tls.CipherSuite) bool { return s.Name == name }
		if i := slices.IndexFunc(tls.CipherSuites(), byName); i >= 0 {
			suite := tls.CipherSuites()[i]
			if onlyTLS13(suite) {
				m.addAt("ciphers", n, "got %q: Go does not let one choose suites of TLS 1.3, it always has all three; leave it out", name)
			} else if slices.Contains(ids, suite.ID) {
				m.addAt("ciphers", n, "%q is there twice", name)
			} else {
				ids = append(ids, suite.ID)
			}
			continue
		}
		switch iana := fromOpenSSL(name); {
		case slices.ContainsFunc(tls.InsecureCipherSuites(), byName):
			m.addAt("ciphers", n, "got %q, which is weak (no forward secrecy, or a broken cipher); want one of %s", name, strings.Join(Ciphers(), ", "))
		case iana != "":
			m.addAt("ciphers", n, "got %q, OpenSSL's name; want %q", name, iana)
		default:
			m.addAt("ciphers", n, "got %q; want one of %s", name, strings.Join(Ciphers(), ", "))
		}
	}
	return ids
}

// fromOpenSSL returns the IANA name of a suite by OpenSSL's, if it is one of ours.
func fromOpenSSL(name string) string {
	for _, iana := range Ciphers() {
		if toOpenSSL.Replace(iana) == strings.ToUpper(name) {
			return iana
		}
	}
	return ""
}

var toOpenSSL = strings.NewReplacer("TLS_", "", "_WITH_", "-", "AES_128", "AES128", "AES_256", "AES256", "_CBC", "",
	"POLY1305_SHA256", "POLY1305", "_", "-")

// curves are the key exchanges by name, the usual one first.
var curves = []struct {
	name string
	id   tls.CurveID
}{
	{"X25519MLKEM768", tls.X25519MLKEM768}, {"SecP256r1MLKEM768", tls.SecP256r1MLKEM768}, {"SecP384r1MLKEM1024", tls.SecP384r1MLKEM1024},
	{"X25519", tls.X25519}, {"P-256", tls.CurveP256}, {"P-384", tls.CurveP384}, {"P-521", tls.CurveP521},
}

func postQuantum(id tls.CurveID) bool {
	return id == tls.X25519MLKEM768 || id == tls.SecP256r1MLKEM768 || id == tls.SecP384r1MLKEM1024
}

// Curves returns the names of the key exchanges that can be chosen.
func Curves() (names []string) {
	for _, c := range curves {
		names = append(names, c.name)
	}
	return names
}

var otherCurveNames = map[string]string{"prime256v1": "P-256", "secp256r1": "P-256", "p256": "P-256", "secp384r1": "P-384",
	"p384": "P-384", "secp521r1": "P-521", "p521": "P-521"}

func parseCurves(names []string, m *mistakes) (ids []tls.CurveID) {
next:
	for n, name := range names {
		for _, c := range curves {
			if c.name == name {
				if slices.Contains(ids, c.id) {
					m.addAt("curves", n, "%q is there twice", name)
				}
				ids = append(ids, c.id)
				continue next
			}
		}
		for _, c := range curves {
			if strings.EqualFold(c.name, name) || otherCurveNames[strings.ToLower(name)] == c.name {
				m.addAt("curves", n, "got %q; want %q", name, c.name)
				continue next
			}
		}
		m.addAt("curves", n, "got %q; want %s", name, strings.Join(Curves(), ", "))
	}
	return ids
}

func parseALPN(names []string, m *mistakes) []string {
	for i, name := range names {
		switch {
		case name == "" || len(name) > 255:
			m.addAt("alpn", i, "got a name of %d bytes; want 1 to 255", len(name))
		case slices.Contains(names[:i], name):
			m.addAt("alpn", i, "%q is there twice", name)
		}
	}
	return slices.Clone(names)
}
