package config

// checkProxyProtocol checks what a frontend says of proxies in front of it.
func (d *decoder) checkProxyProtocol(f *Frontend) {
	p := &f.ProxyProtocol
	if at, ok := d.places[&p.Trusted]; ok && p.Trusted != nil && len(p.Trusted) == 0 {
		d.fail(at, Error{Got: "an empty array", Want: "one prefix or more", Hint: "for none, leave the key out"})
	}
	accept, trusted := d.places[&p.Accept], d.isSet(&p.Trusted)
	switch {
	case accept.bad:
	case p.Accept != "off" && !trusted && !onlyUnix(f.Addresses):
		d.fail(accept, Error{Got: accept.got(), Want: "trusted too", Hint: `who else could tell every address they like; write trusted = ["10.0.0.0/8"]`})
	case p.Accept == "off" && trusted:
		d.warn(d.places[&p.Trusted], "accept is \"off\", so that this has no effect", "")
	}
}

func onlyUnix(addresses []Address) bool {
	for _, a := range addresses {
		if !a.IsUnix() {
			return false
		}
	}
	return len(addresses) > 0
}

// checkSendProxy checks what a pool says of the header that it sends.
func (d *decoder) checkSendProxy(p *Pool) {
	d.once(&p.ProxyTLVs, "one or more of alpn, authority, tls, unique_id and crc32c")
	if at, ok := d.places[&p.ProxyTLVs]; ok && len(p.ProxyTLVs) > 0 && p.SendProxy != "v2" {
		d.fail(at, Error{Problem: `needs send_proxy = "v2"`})
	}
	if at, ok := d.places[&p.SendProxyDatagrams]; ok && !at.bad && p.SendProxy != "v2" {
		d.fail(at, Error{Problem: `needs send_proxy = "v2"`})
	}
}
