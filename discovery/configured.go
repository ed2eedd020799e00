package discovery

import (
	"fmt"
	"net/netip"
	"strings"

	"awe4lb/config"
)

// Configured returns a Runner for pool p, which has discovery. The backends that p names are not its business. The error
// says what the configuration alone cannot tell, such as a file that is missing. tell may be nil.
func Configured(p *config.Pool, within []netip.Prefix, tell func(Event)) (*Runner, error) {
	d := p.Discovery
	var sources []Source
	for _, s := range d.All() {
		source, err := newSource(s)
		if err != nil {
			return nil, err
		}
		sources = append(sources, source)
	}
	set := Settings{
		Interval: d.Interval, Jitter: float64(d.Jitter) / 100, Timeout: d.Timeout, RetryMin: d.RetryMin, RetryMax: d.RetryMax, Debounce: d.Debounce,
		MaxAge: d.MaxAge, MinShare: d.MinShare, Confirm: d.Confirm, MaxBackends: d.MaxBackends, SaveTo: d.SaveTo, Within: within, Tell: tell,
	}
	if d.OnFailure == "empty" {
		set.Fail = Empty
	}
	return New(p.Name, sources, set)
}

// newSource makes a source of its configuration: a case per kind.
func newSource(s *config.Source) (Source, error) {
	switch o := s.Options.(type) {
	case *config.FileSource:
		return NewFile(FileOptions{Path: o.Path, Decoding: decoding(o.ListFormat), MaxBytes: int64(o.MaxBytes)})
	case *config.ExecSource:
		return NewExec(ExecOptions{Argv: o.Command, Env: texts(o.Env), Dir: o.Folder, Decoding: decoding(o.ListFormat), MaxBytes: int64(o.MaxBytes)})
	case *config.HTTPSource:
		return NewHTTP(HTTPOptions{URL: string(o.URL), Headers: headers(o.Headers), User: o.User, Password: secret(o.Password, o.PasswordFile),
			Bearer: secret(o.Token, o.TokenFile), TLS: sourceTLS(o.SourceTLS), Allow: o.Allow, Decoding: decoding(o.ListFormat), MaxBytes: int64(o.MaxBytes)})
	case *config.DNSSource:
		return NewDNS(DNSOptions{Name: o.Name, Port: uint16(o.Port), Family: family(o.Family), Servers: o.Servers, MinTTL: o.MinTTL, MaxTTL: o.MaxTTL})
	case *config.SRVSource:
		return NewSRV(SRVOptions{Name: o.Name, Family: family(o.Family), Servers: o.Servers, MinTTL: o.MinTTL, MaxTTL: o.MaxTTL})
	case *config.ConsulSource:
		return NewConsul(ConsulOptions{URL: o.URL, Service: o.Service, Tags: o.Tags, Warning: o.Warning, Datacenter: o.Datacenter, Namespace: o.Namespace,
			Partition: o.Partition, Token: secret(o.Token, o.TokenFile), TLS: sourceTLS(o.SourceTLS), Allow: o.Allow, Wait: o.Wait, MaxBytes: int64(o.MaxBytes)})
	}
	return nil, fmt.Errorf("kind %q passed validation and is not known", s.Kind)
}

func decoding(f config.ListFormat) Decoding {
	formats := map[string]Format{"auto": Auto, "text": Text, "json": JSON, "toml": TOML}
	p := f.Paths
	return Decoding{Format: formats[f.Format], Lenient: f.Lenient, Line: f.Line, Paths: Paths{List: p.List, Address: p.Address, Host: p.Host, Port: p.Port,
		Weight: p.Weight, Priority: p.Priority, MaxConnections: p.MaxConnections, SNI: p.SNI, Zone: p.Zone, Labels: p.Labels}}
}

func family(s string) Family { return map[string]Family{"both": Both, "ipv4": IPv4, "ipv6": IPv6}[s] }

func secret(value config.Secret, file string) Secret { return Secret{Value: string(value), File: file} }

func sourceTLS(t config.SourceTLS) HTTPTLS {
	return HTTPTLS{CA: t.CA, Cert: t.Cert, Key: t.Key, ServerName: t.ServerName, Insecure: t.InsecureSkipVerify}
}

func texts(secrets []config.Secret) (all []string) {
	for _, s := range secrets {
		all = append(all, string(s))
	}
	return all
}

func headers(lines []config.Secret) map[string]string {
	all := map[string]string{}
	for _, line := range texts(lines) {
		name, value, _ := strings.Cut(line, ":")
		all[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return all
}

// toConfig makes of a list what pools are made of.
func toConfig(list []Backend) []*config.Backend {
	all := make([]*config.Backend, len(list))
	for i, b := range list {
		all[i] = &config.Backend{Address: b.Address, Weight: b.Weight, Priority: b.Priority, MaxConnections: b.MaxConnections, Zone: b.Zone, SNI: b.SNI, Labels: b.Labels}
	}
	return all
}
