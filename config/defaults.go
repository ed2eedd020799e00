package config

import (
	"reflect"
	"time"
)

// newConfig returns what an empty file means, except log.access.format, which follows log.format once that is known.
func newConfig() *Config {
	return &Config{
		Log:   Log{Level: "info", Format: "text", Output: "stderr"},
		Admin: Admin{Bind: "127.0.0.1:7070", Configs: "awe4lb.d", Compat: "none", Push: AdminPush{Interval: 10 * time.Second}},
		Engine: Engine{
			ReadBuffer:   256 << 10,
			Splice:       true,
			SplicePipes:  128,
			DrainTimeout: 30 * time.Second,
		},
		ACME: ACME{Directory: "https://acme-v02.api.letsencrypt.org/directory", Storage: "acme"},
		Defaults: Defaults{
			ConnectTimeout:   5 * time.Second,
			IdleTimeout:      10 * time.Minute,
			HalfCloseTimeout: time.Minute,
			TCP:              TCP{NoDelay: true, Keepalive: time.Minute},
		},
	}
}

func newFrontend(d *Defaults) *Frontend {
	return &Frontend{
		Protocol:         "tcp",
		UnixMode:         0o660,
		SourcePrefixV4:   32,
		SourcePrefixV6:   64,
		IdleTimeout:      d.IdleTimeout,
		HalfCloseTimeout: d.HalfCloseTimeout,
		MaxLifetime:      d.MaxLifetime,
		TCP:              d.TCP,
		UDP:              newUDP(),

		HelloTimeout:           5 * time.Second,
		MaxHandshakes:          8192,
		MaxHandshakesPerPrefix: 1024,
		UnknownName:            "default",
		STARTTLS:               "none",
		ProxyProtocol:          ProxyProtocol{Accept: "off"},
		Access:                 Access{Default: "allow"},
	}
}

func newUDP() UDP {
	return UDP{
		Mode:             "flow",
		Replies:          true,
		BufferSize:       16384,
		IdleTimeout:      time.Minute,
		UnrepliedTimeout: 5 * time.Second,
		MaxFlows:         65536,
		NewFlowPrefixV4:  24,
		NewFlowPrefixV6:  56,
		OnBackendGone:    "move",
		GSO:              true,
		ReceiveBuffer:    4 << 20,
		ReplyBuffer:      1 << 20,
	}
}

func newPool(d *Defaults) *Pool {
	p := &Pool{
		Policy:             "roundrobin",
		HashKey:            "source",
		HashPrefixV4:       24,
		HashPrefixV6:       56,
		PanicThreshold:     50,
		ConnectTimeout:     d.ConnectTimeout,
		ConnectAttempts:    3,
		SendProxy:          "off",
		SendProxyDatagrams: "every",
		TCP:                d.TCP,
		OnDown:             "keep",
		OnRemoved:          "keep",
		OnMaintenance:      "drain",
		DrainTimeout:       30 * time.Second,
	}
	p.TCP.Backlog = 0 // a pool has no listeners
	return p
}

func newHealth() *Health {
	return &Health{
		Kind:          "tcp",
		Interval:      2 * time.Second,
		Timeout:       time.Second,
		Rise:          2,
		Fall:          3,
		Initial:       "up",
		Jitter:        10,
		TLS:           "auto",
		ExpiryWarning: 14 * 24 * time.Hour,
		Method:        "GET",
		Path:          "/",
		Status:        "200-399",
		ReadLimit:     64 << 10,
		Follow:        "host",
	}
}

// fresh returns a pointer to a new t, filled with what it holds when its table is empty. A table that inherits starts
// as a copy of what it inherits and then takes its own keys, so that nothing has to remember which keys were set.
func fresh(t reflect.Type, d *Defaults) reflect.Value {
	switch t {
	case reflect.TypeFor[Frontend]():
		return reflect.ValueOf(newFrontend(d))
	case reflect.TypeFor[Pool]():
		return reflect.ValueOf(newPool(d))
	case reflect.TypeFor[FrontendTLS]():
		return reflect.ValueOf(&FrontendTLS{MinVersion: "1.2", MaxVersion: "1.3", HandshakeTimeout: 10 * time.Second,
			ClientAuth: "none", SessionTickets: true, OCSPStapling: true})
	case reflect.TypeFor[PoolTLS]():
		return reflect.ValueOf(&PoolTLS{MinVersion: "1.2", MaxVersion: "1.3", HandshakeTimeout: 5 * time.Second, SessionCache: true})
	case reflect.TypeFor[Health]():
		return reflect.ValueOf(newHealth())
	case reflect.TypeFor[Discovery]():
		return reflect.ValueOf(newDiscovery())
	case reflect.TypeFor[Persistence]():
		return reflect.ValueOf(&Persistence{Key: "source", PrefixV4: 24, PrefixV6: 56, TTL: 30 * time.Minute, MaxEntries: 100_000})
	case reflect.TypeFor[SuccessRate]():
		return reflect.ValueOf(&SuccessRate{Interval: 10 * time.Second, MinRequests: 100, MinBackends: 5, Deviation: 190, Margin: 5})
	case reflect.TypeFor[Outliers]():
		return reflect.ValueOf(&Outliers{Failures: 5, Ejection: 30 * time.Second, MaxEjection: 5 * time.Minute, MaxEjected: 50})
	case reflect.TypeFor[Queue]():
		return reflect.ValueOf(&Queue{Timeout: 5 * time.Second})
	case reflect.TypeFor[Backend]():
		return reflect.ValueOf(&Backend{Weight: 1})
	case reflect.TypeFor[AdminUser]():
		return reflect.ValueOf(&AdminUser{Role: "read"})
	case reflect.TypeFor[AdminToken]():
		return reflect.ValueOf(&AdminToken{Role: "read"})
	case reflect.TypeFor[AdminTLS]():
		return reflect.ValueOf(&AdminTLS{ClientRole: "read"})
	}
	return reflect.New(t)
}
