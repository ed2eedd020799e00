package config

import (
	"fmt"
	"strings"
	"testing"
)

// TestPolicyWarnings: settings that a policy does not use are told of.
func TestPolicyWarnings(t *testing.T) {
	for pool, want := range map[string]string{
		``: "",
		`policy = "maglev"
hash_key = "sni"`: "",
		"[pools.p.persistence]\nkey = \"prefix\"\nprefix_v4 = 8": "",
		"[pools.p.persistence]\nprefix_v6 = 8":                   `persistence.prefix_v6: without effect unless key is "prefix"`,
		"[pools.p.outliers.success_rate]":                        "outliers.success_rate: without effect: min_backends is 5, and the pool has 1",
		`hash_key = "source"`:                                    "hash_key: only the policies iphash and maglev go by a hash",
		`policy = "iphash"
hash_prefix_v4 = 8`: `hash_prefix_v4: without effect unless hash_key is "prefix"`,
		`policy = "iphash"
hash_key = "prefix"
hash_prefix_v6 = 8`: "",
		`policy = "iphash"
slow_start = "30s"`: "slow_start: a policy that goes by a hash has no slow start: clients would move twice",
		`slow_start = "30s"`:  "",
		`prefer_zone = true`:  "prefer_zone: engine.zone does not say which zone is to be preferred",
		`prefer_zone = false`: "",
	} {
		cfg, err := Parse("f", []byte("[frontends.web]\nbind = [\"127.0.0.1:80\"]\npool = \"p\"\n[pools.p]\nbackends = [{ address = \"10.0.0.1:1\", zone = \"a\" }]\n"+pool))
		if err != nil {
			t.Errorf("%s: %v", pool, err)
			continue
		}
		got := strings.Join(cfg.Warnings, "; ")
		if _, after, ok := strings.Cut(got, "pools.p."); ok {
			got = after
		}
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", pool, got, want)
		}
	}
	const zoned = "[engine]\nzone = \"b\"\n[frontends.web]\nbind = [\"127.0.0.1:80\"]\npool = \"p\"\n[pools.p]\nprefer_zone = true\nbackends = [{ address = \"10.0.0.1:1\", zone = \"a\" }]\n"
	cfg, err := Parse("f", []byte(zoned))
	if err != nil || len(cfg.Warnings) != 1 || !strings.Contains(cfg.Warnings[0], `no backend of the pool is in the zone "b"`) {
		t.Errorf("got %v, %v", cfg.Warnings, err)
	}
	const datagrams = "[frontends.web]\nbind = [\"127.0.0.1:80\"]\nprotocol = \"udp\"\npool = \"p\"\n[pools.p]\npolicy = \"maglev\"\nhash_key = \"sni\"\nbackends = [{ address = \"10.0.0.1:1\" }]\n"
	cfg, err = Parse("f", []byte(datagrams))
	if err != nil || len(cfg.Warnings) != 1 || !strings.Contains(cfg.Warnings[0], "datagrams have no name to hash") {
		t.Errorf("got %v, %v", cfg.Warnings, err)
	}
}

// TestSuccessRateWarnings: a deviation that cannot happen among the backends that are listed.
func TestSuccessRateWarnings(t *testing.T) {
	for deviation, want := range map[int]string{174: "without effect: of 4 backends none is ever as far below the average as deviation says (173 or less)", 173: ""} {
		cfg, err := Parse("f", fmt.Appendf(nil, `[frontends.web]
bind = ["127.0.0.1:80"]
pool = "p"
[pools.p]
backends = [{ address = "10.0.0.1:1" }, { address = "10.0.0.2:1" }, { address = "10.0.0.3:1" }, { address = "10.0.0.4:1" }]
outliers.success_rate = { min_backends = 4, deviation = %d }
`, deviation))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(cfg.Warnings, "; "); !strings.HasSuffix(got, want) || (got == "") != (want == "") {
			t.Errorf("%d: got %q, want %q", deviation, got, want)
		}
	}
}

// TestOtherPolicies: the names that policies have elsewhere lead to ours, and these exist.
func TestOtherPolicies(t *testing.T) {
	for theirs, ours := range otherPolicies {
		_, err := Parse("f", []byte("[pools.p]\npolicy = \""+theirs+"\"\n"))
		if err == nil || !strings.Contains(err.Error(), `(write "`+ours+`")`) {
			t.Errorf("%s: got %v", theirs, err)
		}
		if _, err := Parse("f", []byte("[pools.p]\npolicy = \""+ours+"\"\n")); err != nil {
			t.Errorf("%s: %v", ours, err)
		}
	}
}
