package certs

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"awe4lb/tlsbridge"
)

// Where a certificate comes from.
const (
	OriginFile       = "file"
	OriginACME       = "acme"
	OriginSelfSigned = "self-signed" // made by us
)

// CertificateStatus is a certificate in use, or a name that waits for one.
type CertificateStatus struct {
	Frontend, Pool string    // who uses it: one of the two
	Names          []string  // DNS names and IP addresses
	Origin         string    // OriginFile and so on
	File           string    // "" with OriginACME
	Unwritten      bool      // it is not in the file yet
	Key            string    // such as ECDSA P-256
	NotBefore      time.Time // zero, as all below: the issuer has none for the name yet
	NotAfter       time.Time // of the chain: the earliest
	Fingerprint    string    // SHA-256 of the leaf, hex
	Changed        time.Time // when it was put to use; zero with OriginACME
	Error          string    // why what its files hold now is not in use; "" if it is
	Staple         StapleStatus
}

// StapleStatus is the OCSP response of a certificate.
type StapleStatus struct {
	State        StapleState
	Since, Until time.Time // of the one in use; zero: none
	Next         time.Time // when the responder is asked again; zero: never
	Error        string    // of the last attempt
}

// counters count since the start.
type counters struct{ reloadsOK, reloadsFailed, stapleFailures atomic.Int64 }

// Counters count since the start.
type Counters struct {
	ReloadsOK      int64 // changed files that were put to use
	ReloadsFailed  int64 // and those that could not be
	StapleFailures int64 // OCSP responses that were not had, or not good
}

// Counters returns the counts. Never blocks; safe from any goroutine.
func (k *Keeper) Counters() Counters {
	return Counters{k.counters.reloadsOK.Load(), k.counters.reloadsFailed.Load(), k.counters.stapleFailures.Load()}
}

// Status returns the certificates in use, by frontend and pool, those of a frontend in the order of its table. The slice
// is shared and must not be changed. Never blocks; safe from any goroutine.
func (k *Keeper) Status() []CertificateStatus { return *k.status.Load() }

// Problems returns what is wrong with files that have changed, one line each: the old ones stay in use. The slice is shared.
// Never blocks; safe from any goroutine.
func (k *Keeper) Problems() []string { return *k.problems.Load() }

// publish makes the status anew.
func (k *Keeper) publish() {
	k.dirty = false
	var list []CertificateStatus
	for _, name := range sorted(k.set.Servers) {
		list = append(list, k.statusOf(k.set.Servers[name])...)
	}
	for _, name := range sorted(k.set.pools) {
		if p := k.set.pools[name]; p.own != nil {
			st := statusOf(p.own)
			st.Pool, st.Origin, st.File, st.Changed, st.Error = name, OriginFile, p.table.Cert, p.files.changed, text(p.files.err)
			st.Staple.State = StapleOff
			list = append(list, st)
		}
	}
	k.status.Store(&list)
	var problems []string
	for _, s := range k.set.watched {
		if s.err != nil {
			problems = append(problems, s.owner+": "+s.what+": "+s.err.Error())
		}
	}
	k.problems.Store(&problems)
}

func sorted[V any](m map[string]V) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// statusOf returns the status of sv's certificates, and of the names that wait for one.
func (k *Keeper) statusOf(sv *Server) (list []CertificateStatus) {
	for _, c := range sv.composed {
		list = append(list, k.statusIn(sv, &c))
	}
	for _, name := range sv.table.ACME {
		if !slices.ContainsFunc(sv.composed, func(c composed) bool { return c.pair == nil && slices.Contains(c.certificate.Names, name) }) {
			list = append(list, CertificateStatus{Frontend: sv.name, Names: []string{name}, Origin: OriginACME,
				Staple: StapleStatus{State: StapleOff}})
		}
	}
	return list
}

// statusIn returns the status of one certificate of sv.
func (k *Keeper) statusIn(sv *Server, c *composed) CertificateStatus {
	s := statusOf(c.certificate)
	s.Frontend, s.Origin, s.Staple.State = sv.name, OriginACME, StapleOff
	if p := c.pair; p != nil {
		s.Origin, s.File, s.Changed, s.Error = OriginFile, p.key.cert, p.cert.changed, text(p.cert.err)
		if isOurs(c.certificate) {
			s.Origin = OriginSelfSigned
			s.Unwritten = missing(p.key.cert)
		}
	}
	if st := k.staples[stapleKey(c)]; st != nil && (sv.table.OCSPStapling || st.responder == "") {
		s.Staple = StapleStatus{State: st.state, Since: st.since, Until: st.until, Error: text(st.err)}
		if st.responder != "" {
			s.Staple.Next = st.next
		}
		if st.response == nil {
			s.Staple.Since, s.Staple.Until = time.Time{}, time.Time{}
		}
	}
	return s
}

func statusOf(c *tlsbridge.Certificate) CertificateStatus {
	s := Describe(c.Leaf())
	s.Names, s.NotAfter = names(c), c.NotAfter
	return s
}

// Describe returns the status of a certificate by itself, wherever it comes from.
func Describe(leaf *x509.Certificate) CertificateStatus {
	sum := sha256.Sum256(leaf.Raw)
	s := CertificateStatus{Names: slices.Clone(leaf.DNSNames), Key: keyType(leaf), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		Fingerprint: hex.EncodeToString(sum[:])}
	for _, ip := range leaf.IPAddresses {
		s.Names = append(s.Names, ip.String())
	}
	return s
}

// keyType names the kind of a certificate's key.
func keyType(leaf *x509.Certificate) string {
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return "unknown"
}

// Serves returns what a frontend has for a name: the certificates that clients choose from by what they support, the
// preferred one first, and whether they have the name: otherwise they are the default. It is for those who ask before a
// Commit, too; see awe4lb cert show.
func (k *Keeper) Serves(sv *Server, name string) (list []CertificateStatus, named bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	set := sv.certificates.Load()
	if set == nil {
		return nil, false
	}
	certs, named := set.For(strings.TrimSuffix(name, "."))
	for _, c := range certs {
		i := slices.IndexFunc(sv.composed, func(o composed) bool { return o.certificate.Fingerprint() == c.Fingerprint() })
		list = append(list, k.statusIn(sv, &sv.composed[i]))
	}
	return list, named
}

// Names returns the names of all certificates of the frontend, and of those it waits for, in a fixed order.
func (sv *Server) Names() (all []string) {
	if set := sv.certificates.Load(); set != nil {
		for _, c := range set.All() {
			all = append(all, c.Names...)
		}
	}
	all = append(all, sv.table.ACME...)
	slices.SortFunc(all, cmp.Compare)
	return slices.Compact(all)
}
