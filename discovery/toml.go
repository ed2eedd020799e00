package discovery

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/BurntSushi/toml"
)

// TOML is written as the backends of a pool are in awe4lb.toml:
//
//	backends = [{ address = "10.0.0.7:80", weight = 2 }]
//
// or as [[backends]] tables, with the keys address, weight, priority, max_connections, sni, zone and labels.
type tomlList struct {
	Backends *[]struct {
		Address        string            `toml:"address"`
		Weight         *int              `toml:"weight"`
		Priority       int               `toml:"priority"`
		MaxConnections int               `toml:"max_connections"`
		SNI            string            `toml:"sni"`
		Zone           string            `toml:"zone"`
		Labels         map[string]string `toml:"labels"`
	} `toml:"backends"`
}

func (d *decoder) toml(b []byte) (List, error) {
	var t tomlList
	meta, err := toml.Decode(string(b), &t)
	if err != nil {
		return List{}, errors.New(clip(strconv.QuoteToASCII(err.Error())))
	}
	if keys := meta.Undecoded(); len(keys) > 0 {
		return List{}, fmt.Errorf("got the key %s, which means nothing here", quote(keys[0].String()))
	}
	if t.Backends == nil {
		return List{}, errors.New("got no backends; an empty list is backends = []")
	}
	var list List
	for i, e := range *t.Backends {
		back := Backend{Weight: 1, Priority: e.Priority, MaxConnections: e.MaxConnections, SNI: e.SNI, Zone: e.Zone, Labels: e.Labels}
		if e.Weight != nil {
			back.Weight = *e.Weight
		}
		back.Address, err = parseAddress(e.Address)
		if err := d.entry(&list, "backend", i, back, err); err != nil {
			return List{}, err
		}
	}
	return list, nil
}
