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
	case *config.DockerSource:
		return NewDocker(DockerOptions{Endpoint: o.URL, TLS: sourceTLS(o.SourceTLS), Allow: o.Allow, Labels: o.Labels, Filters: filters(o.Filters), Port: o.Port,
			UDP: o.Protocol == "udp", Network: o.Network, IPv6: o.Family == "ipv6", Published: o.Published, Host: address(o.Host), HostEnv: o.HostEnv,
			SNILabel: o.SNILabel, Unhealthy: o.Unhealthy, Resync: o.Resync, MaxBytes: int64(o.MaxBytes)})
	case *config.LXDSource:
		return NewLXD(LXDOptions{URL: o.URL, TLS: sourceTLS(o.SourceTLS), Fingerprint: o.Fingerprint, Password: secret(o.Password, o.PasswordFile), Allow: o.Allow,
			Project: o.Project, Key: o.ConfigKey, Value: o.ConfigValue, Port: o.Port, PortKey: o.PortKey, Interface: o.Interface, InterfaceKey: o.InterfaceKey,
			SNIKey: o.SNIKey, IPv6: o.Family == "ipv6", Resync: o.Resync, MaxBytes: int64(o.MaxBytes)})
	case *config.KubernetesSource:
		k := KubernetesOptions{Namespace: o.Namespace, Service: o.Service, Selector: o.Selector, Port: o.Port, UDP: o.Protocol == "udp", Family: family(o.Family),
			NodePort: o.NodePort, URL: o.URL, Token: secret(o.Token, o.TokenFile), TLS: sourceTLS(o.SourceTLS), Kubeconfig: o.Kubeconfig, Context: o.Context,
			Allow: o.Allow, Wait: o.Wait, MaxBytes: int64(o.MaxBytes)}
		if o.NodePort {
			k.NodeAddress = o.NodeAddress
		}
		return NewKubernetes(k)
	case *config.EtcdSource:
		return NewEtcd(EtcdOptions{Endpoints: o.Endpoints, Prefix: o.Prefix, User: o.User, Password: secret(o.Password, o.PasswordFile), TLS: sourceTLS(o.SourceTLS),
			Allow: o.Allow, Decoding: decoding(o.ListFormat), Resync: o.Resync, MaxBytes: int64(o.MaxBytes)})
	case *config.RedisSource:
		at, useTLS := redisAddress(o.URL)
		return NewRedis(RedisOptions{Address: at, Key: o.Name, DB: o.DB, User: o.User, Password: secret(o.Password, o.PasswordFile), UseTLS: useTLS,
			TLS: sourceTLS(o.SourceTLS), Allow: o.Allow, Decoding: decoding(o.ListFormat), MaxBytes: int64(o.MaxBytes)})
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

// address is "" for none.
func address(ip netip.Addr) string {
	if !ip.IsValid() {
		return ""
	}
	return ip.String()
}

// filters gathers KEY=VALUE by key.
func filters(lines []string) map[string][]string {
	all := map[string][]string{}
	for _, line := range lines {
		key, value, _ := strings.Cut(line, "=")
		all[key] = append(all[key], value)
	}
	return all
}

// redisAddress takes a URL apart: unix://… stays what it is.
func redisAddress(url string) (at string, useTLS bool) {
	if at, useTLS = strings.CutPrefix(url, "rediss://"); useTLS {
		return at, true
	}
	return strings.TrimPrefix(url, "redis://"), false
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
