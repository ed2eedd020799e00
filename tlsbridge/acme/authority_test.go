//go:build e2e

package acme

import (
	"crypto/tls"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"awe4lb/internal/lbtest"
)

func TestIssueByEachChallenge(t *testing.T) {
	for _, kind := range []string{"tls", "http"} {
		t.Run(kind, func(t *testing.T) {
			lbtest.CheckLeaks(t)
			s := newSite(t)
			p := startPebble(t, s, pebbleOptions{})
			s.deaf.Store(map[string]string{"tls": "http", "http": "tls"}[kind])
			i, _ := s.newIssuer(t)
			manage(t, i, p.settings, "WWW.example.com.")
			select {
			case <-i.Changed():
			case <-time.After(40 * time.Second):
				t.Fatalf("no change: %+v", i.Status())
			}
			valid(t, i, www)
			leaf := i.Certificate(www).Leaf()
			if got := s.served(www); got == nil || !got.Equal(leaf) {
				t.Fatal("clients do not get the certificate")
			}
			c := i.Counters()
			if kind == "tls" && c.TLSALPN01 == 0 || kind == "http" && c.HTTP01 == 0 || c.Obtained != 1 {
				t.Errorf("got %+v; want one certificate, by %s", c, kind)
			}
			st, _ := status(i, www)
			if !st.NotAfter.Equal(leaf.NotAfter) || st.LastError != "" || !st.NextAttempt.Before(st.NotAfter) {
				t.Errorf("got %+v", st)
			}
			// All answers are forgotten.
			if a := i.challenges.own.Load(); len(a.byName)+len(a.byToken) > 0 {
				t.Errorf("left over: %+v", a)
			}
			lbtest.Eventually(t, "those in the folder are forgotten", func() bool {
				a := i.challenges.others.Load()
				return a != nil && len(a.byName)+len(a.byToken) == 0
			})
			filepath.WalkDir(p.settings.Storage, func(path string, d fs.DirEntry, err error) error { //nolint:errcheck // the callback tells
				if err != nil {
					t.Fatal(err)
				}
				info, err := d.Info()
				if err != nil {
					t.Fatal(err)
				}
				if info.Mode().Perm()&0o077 != 0 {
					t.Errorf("%s has mode %v", path, info.Mode())
				}
				return nil
			})
		})
	}
}

func TestRestartServesFromStorageWithoutTheCA(t *testing.T) {
	lbtest.CheckLeaks(t)
	s := newSite(t)
	p := startPebble(t, s, pebbleOptions{})
	i, _ := s.newIssuer(t)
	manage(t, i, p.settings, www)
	was := valid(t, i, www)
	i.Close()
	p.stop()

	i, log := s.newIssuer(t)
	manage(t, i, p.settings, www)
	if c := i.Certificate(www); c == nil || c.Fingerprint() != was {
		t.Fatal("the stored certificate is not there when Manage returns")
	}
	until(t, i, www, "is valid", func(s Status) bool { return s.State == Valid && s.Failures == 0 && !s.NextAttempt.IsZero() })
	if log.count("level=WARN") > 0 {
		t.Error("a CA that is away is no trouble before a certificate is due")
	}
}

func TestRenewalUnderLoad(t *testing.T) {
	lbtest.CheckLeaks(t)
	s := newSite(t)
	p := startPebble(t, s, pebbleOptions{})
	i, _ := s.newIssuer(t)
	manage(t, i, p.settings, www)
	was := valid(t, i, www)
	old := i.Certificate(www).Leaf()

	stop := make(chan struct{})
	var clients sync.WaitGroup
	clients.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			got := s.served(www)
			if got == nil || !got.Equal(old) && !got.Equal(i.Certificate(www).Leaf()) {
				t.Error("a client got neither the old nor the new certificate")
				return
			}
		}
	})
	if err := i.Renew(www); err != nil {
		t.Fatal(err)
	}
	until(t, i, www, "has another certificate", func(Status) bool { return i.Certificate(www).Fingerprint() != was })
	close(stop)
	clients.Wait()
	if got := s.served(www); got == nil || got.Equal(old) {
		t.Error("clients get the old certificate")
	}
	if err := i.Renew("other.example.com"); err == nil {
		t.Error("a name that nobody wants was renewed")
	}
}

func TestShortLivedCertificatesAreRenewedInTime(t *testing.T) {
	lbtest.CheckLeaks(t)
	s := newSite(t)
	p := startPebble(t, s, pebbleOptions{validity: 12 * time.Second})
	i, _ := s.newIssuer(t)
	manage(t, i, p.settings, www)
	was := valid(t, i, www)
	notAfter := i.Certificate(www).NotAfter
	until(t, i, www, "has another certificate", func(Status) bool { return i.Certificate(www).Fingerprint() != was })
	if !time.Now().Before(notAfter) {
		t.Error("the old certificate had expired")
	}
}

func TestAccountThatTheCAHasEnded(t *testing.T) {
	lbtest.CheckLeaks(t)
	s := newSite(t)
	p := startPebble(t, s, pebbleOptions{})
	i, log := s.newIssuer(t)
	manage(t, i, p.settings, www)
	was := valid(t, i, www)

	// Another account takes its place.
	deactivate(t, i)
	if err := i.Renew(www); err != nil {
		t.Fatal(err)
	}
	until(t, i, www, "has another certificate", func(Status) bool { return i.Certificate(www).Fingerprint() != was })
	if log.count("account registered") != 2 || log.count("the CA has ended our account") != 1 {
		t.Error("want two accounts in the log, and the end of one")
	}

	// Once a day.
	was = valid(t, i, www)
	deactivate(t, i)
	if err := i.Renew(www); err != nil {
		t.Fatal(err)
	}
	st := until(t, i, www, "fails", func(s Status) bool { return s.State == Failing })
	if !strings.Contains(st.LastError, "deactivated") || !strings.Contains(st.LastError, "ended two accounts") {
		t.Errorf("got %q", st.LastError)
	}
	if i.Certificate(www).Fingerprint() != was {
		t.Error("the certificate in use is gone")
	}
}

func TestAccountThatTheCAHasLost(t *testing.T) {
	lbtest.CheckLeaks(t)
	s := newSite(t)
	p := startPebble(t, s, pebbleOptions{})
	i, log := s.newIssuer(t)
	manage(t, i, p.settings, www)
	was := valid(t, i, www)
	p.stop()
	p.start() // with an empty memory
	if err := i.Renew(www); err != nil {
		t.Fatal(err)
	}
	until(t, i, www, "has another certificate", func(Status) bool { return i.Certificate(www).Fingerprint() != was })
	if log.count("account registered") != 2 {
		t.Error("want two accounts in the log")
	}
}

func TestUnreachableCA(t *testing.T) {
	lbtest.CheckLeaks(t)
	s := newSite(t)
	p := startPebble(t, s, pebbleOptions{})
	i, log := s.newIssuer(t)
	manage(t, i, p.settings, www)
	was := valid(t, i, www)
	p.stop()

	names := []string{www, "a.example.com", "b.example.com", "c.example.com", "d.example.com", "e.example.com"}
	manage(t, i, p.settings, names...)
	if err := i.Renew(www); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		st := until(t, i, name, "fails", func(s Status) bool { return s.State == Failing })
		if !strings.Contains(st.LastError, "no answer from https://"+p.address) || st.Failures != 1 || time.Until(st.NextAttempt) < 50*time.Second {
			t.Errorf("got %+v", st)
		}
	}
	if n := log.count("no certificate from the CA"); n != 1 {
		t.Errorf("%d lines about one CA that is down", n)
	}
	if i.Certificate(www).Fingerprint() != was || s.served(www) == nil {
		t.Error("the certificate in use is gone")
	}
	if i.Certificate("a.example.com") != nil {
		t.Error("a certificate from nowhere")
	}
}

func TestUnreachableCAThatComesBack(t *testing.T) {
	lbtest.CheckLeaks(t)
	s := newSite(t)
	p := startPebble(t, s, pebbleOptions{})
	p.stop()
	i, _ := s.newIssuer(t)
	i.backoff = func(int, bool) time.Duration { return 20 * time.Millisecond }
	manage(t, i, p.settings, www)
	until(t, i, www, "fails again and again", func(s Status) bool { return s.Failures > 2 })
	p.start()
	valid(t, i, www)
	if st, _ := status(i, www); st.Failures != 0 || st.LastError != "" {
		t.Errorf("got %+v", st)
	}
}

func TestSilentCADelaysNothing(t *testing.T) {
	lbtest.CheckLeaks(t)
	s := newSite(t)
	i, _ := s.newIssuer(t)
	settings := settings(t)
	settings.Directory = "https://" + lbtest.Silent(t) + "/dir"
	began := time.Now()
	manage(t, i, settings, www)
	until(t, i, www, "waits for the CA", func(s Status) bool { return s.State == Ordering })
	i.Close()
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("Manage and Close took %v", d)
	}
}

func TestExternalAccountBinding(t *testing.T) {
	lbtest.CheckLeaks(t)
	s := newSite(t)
	key := "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	p := startPebble(t, s, pebbleOptions{eab: map[string]string{"kid-1": key}})
	i, _ := s.newIssuer(t)
	manage(t, i, p.settings, www)
	st := until(t, i, www, "fails", func(s Status) bool { return s.State == Failing })
	if !strings.Contains(st.LastError, "acme.eab_key_id and acme.eab_hmac_key") {
		t.Errorf("without: got %q", st.LastError)
	}
	wrong := p.settings
	wrong.EABKeyID, wrong.EABHMAC = "kid-1", "AAAADZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"[:64]
	manage(t, i, wrong, www)
	st = until(t, i, www, "fails", func(s Status) bool { return s.State == Failing })
	if !strings.Contains(st.LastError, "it does not take acme.eab_key_id") {
		t.Errorf("wrong: got %q", st.LastError)
	}
	right := wrong
	right.EABHMAC = key
	manage(t, i, right, www)
	valid(t, i, www)
}

func TestAnotherDirectory(t *testing.T) {
	lbtest.CheckLeaks(t)
	s := newSite(t)
	first, second := startPebble(t, s, pebbleOptions{}), startPebble(t, s, pebbleOptions{})
	i, _ := s.newIssuer(t)
	manage(t, i, first.settings, www)
	was := valid(t, i, www)

	moved := second.settings
	moved.Storage = first.settings.Storage
	second.stop()
	manage(t, i, moved, www)
	if i.Certificate(www).Fingerprint() != was {
		t.Fatal("the certificate in use is gone before there is another")
	}
	until(t, i, www, "fails", func(s Status) bool { return s.State == Failing })

	// A restart serves the other CA's, too.
	i.Close()
	i, _ = s.newIssuer(t)
	manage(t, i, moved, www)
	if c := i.Certificate(www); c == nil || c.Fingerprint() != was {
		t.Fatal("the certificate of the other CA is not served")
	}
	second.start()
	if err := i.Renew(www); err != nil {
		t.Fatal(err)
	}
	until(t, i, www, "has another certificate", func(Status) bool { return i.Certificate(www).Fingerprint() != was })
}

func TestProcessesThatShareAFolder(t *testing.T) {
	for _, kind := range []string{"tls", "http"} {
		t.Run(kind, func(t *testing.T) {
			lbtest.CheckLeaks(t)
			s := newSite(t)
			p := startPebble(t, s, pebbleOptions{})
			s.deaf.Store(map[string]string{"tls": "http", "http": "tls"}[kind])
			a, _ := s.newIssuer(t)
			manage(t, a, p.settings, www)
			b, _ := s.newIssuer(t) // the site asks this one: the CA has another address of the name
			manage(t, b, p.settings, www)
			if valid(t, a, www) != valid(t, b, www) {
				t.Error("two certificates")
			}
			if n := a.Counters().Obtained + b.Counters().Obtained; n != 1 {
				t.Errorf("%d orders", n)
			}
			// One that the other has no part in.
			was := valid(t, a, www)
			if err := a.Renew(www); err != nil {
				t.Fatal(err)
			}
			until(t, a, www, "has another certificate", func(Status) bool { return a.Certificate(www).Fingerprint() != was })
			if c := b.Counters(); kind == "tls" && c.TLSALPN01 == 0 || kind == "http" && c.HTTP01 == 0 {
				t.Errorf("got %+v; want answers by the other", c)
			}
		})
	}
}

func TestFilesOfNoUseAreReplaced(t *testing.T) {
	lbtest.CheckLeaks(t)
	s := newSite(t)
	p := startPebble(t, s, pebbleOptions{})
	i, _ := s.newIssuer(t)
	manage(t, i, p.settings, www)
	valid(t, i, www)
	i.Close()
	folder := filepath.Join(p.settings.Storage, "certificates", strings.ReplaceAll(p.address, ":", "-")+"-dir", www)
	if err := os.WriteFile(filepath.Join(folder, www+".key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	i, log := s.newIssuer(t)
	manage(t, i, p.settings, www)
	valid(t, i, www)
	if i.Counters().Obtained != 1 || log.count("of no use") != 1 {
		t.Error("want a line and another certificate")
	}
}

func TestNamesThatAreNotWantedAnyMore(t *testing.T) {
	lbtest.CheckLeaks(t)
	s := newSite(t)
	p := startPebble(t, s, pebbleOptions{})
	i, _ := s.newIssuer(t)
	manage(t, i, p.settings, www, "mail.example.com")
	was := valid(t, i, www)
	valid(t, i, "mail.example.com")
	manage(t, i, p.settings, www)
	if i.Certificate("mail.example.com") != nil || len(i.Status()) != 1 || i.Certificate(www).Fingerprint() != was {
		t.Errorf("got %+v", i.Status())
	}
	manage(t, i, p.settings)
	if i.Certificate(www) != nil || len(i.Status()) != 0 {
		t.Errorf("got %+v", i.Status())
	}
}

func TestUntrustedDirectory(t *testing.T) {
	lbtest.CheckLeaks(t)
	s := newSite(t)
	p := startPebble(t, s, pebbleOptions{})
	i, _ := s.newIssuer(t)
	other := p.settings
	other.CA = lbtest.Files(t, "other.pem", lbtest.NewCA(t).PEM)
	manage(t, i, other, www)
	st := until(t, i, www, "fails", func(s Status) bool { return s.State == Failing })
	if !strings.Contains(st.LastError, "nobody in acme.ca has signed") {
		t.Errorf("got %q", st.LastError)
	}
	other.CA = ""
	manage(t, i, other, www)
	st = until(t, i, www, "fails", func(s Status) bool { return s.State == Failing })
	if !strings.Contains(st.LastError, "want acme.ca") {
		t.Errorf("got %q", st.LastError)
	}
}

func TestNoChallengeIsAnsweredByDefault(t *testing.T) {
	lbtest.CheckLeaks(t)
	s := newSite(t)
	p := startPebble(t, s, pebbleOptions{})
	other, _ := newSite(t).newIssuer(t) // the site asks an issuer that knows of no challenge
	i, _ := s.newIssuer(t)
	s.issuer.Store(other)
	manage(t, i, p.settings, www)
	st := until(t, i, www, "fails", func(s Status) bool { return s.State == Failing })
	if !strings.Contains(st.LastError, "the name has to lead to this process") || time.Until(st.NextAttempt) < 4*time.Minute {
		t.Errorf("got %+v", st)
	}
	if c := other.Counters(); c.HTTP01Unknown == 0 || c.TLSALPN01Unknown == 0 {
		t.Errorf("got %+v; want both kinds tried", c)
	}
	if _, err := other.Challenge(&tls.ClientHelloInfo{ServerName: www}); err == nil {
		t.Error("an answer to nobody's question")
	}
}

func TestManageRefuses(t *testing.T) {
	lbtest.CheckLeaks(t)
	i, _ := newSite(t).newIssuer(t)
	good := settings(t)
	for want, edit := range map[string]func() []string{
		`"*.example.com"; want single names`: func() []string { return []string{"*.example.com"} },
		`not an IP address`:                  func() []string { return []string{"192.0.2.1"} },
		`"a b"; want a DNS name`:             func() []string { return []string{"a b"} },
		`acme.directory: got "http://`:       func() []string { good.Directory = "http://x/dir"; return []string{www} },
		`acme.agree`:                         func() []string { good.Agree = false; return []string{www} },
		`both or neither of eab_key_id`:      func() []string { good.EABKeyID = "x"; return []string{www} },
		`acme.ca: open /nowhere`:             func() []string { good.CA = "/nowhere"; return []string{www} },
		`acme.ca: /dev/null: want`:           func() []string { good.CA = "/dev/null"; return []string{www} },
		`acme.storage: mkdir /dev/null`:      func() []string { good.Storage = "/dev/null/acme"; return []string{www} },
	} {
		good = settings(t)
		names := edit()
		if err := i.Manage(good, names); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want … %s …", err, want)
		}
	}
	if len(i.Status()) > 0 {
		t.Error("something is managed")
	}
	i.Close()
	if err := i.Manage(settings(t), []string{www}); err == nil {
		t.Error("managed after Close")
	}
}
