package config

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// keyValues holds, for every key there is, a valid value that is not the default, and what Go makes of it. Keys are
// written as tables() labels them.
var keyValues = map[string]struct {
	toml string
	want any
}{
	"[log].level":            {`"warn"`, "warn"},
	"[log].format":           {`"json"`, "json"},
	"[log].output":           {`"awe4lb.log"`, "awe4lb.log"},
	"[log.access].output":    {`"stdout"`, "stdout"},
	"[log.access].format":    {`"json"`, "json"},
	"[admin].bind":           {`"localhost:7071"`, "localhost:7071"},
	"[admin].hosts":          {`["LB.example.com"]`, []string{"lb.example.com"}},
	"[admin].anonymous":      {`"read"`, "read"},
	"[admin].configs":        {`"/etc/awe4lb/configs"`, "/etc/awe4lb/configs"},
	"[admin].allow_exec":     {`true`, true},
	"[admin].upgrade":        {`["/bin/true", "x"]`, []string{"/bin/true", "x"}},
	"[admin].compat":         {`"gobetween"`, "gobetween"},
	"[engine].shards":        {`1024`, 1024},
	"[engine].read_buffer":   {`"1MiB"`, Size(1 << 20)},
	"[engine].splice":        {`false`, false},
	"[engine].splice_pipes":  {`65536`, 65536},
	"[engine].drain_timeout": {`"24h"`, 24 * time.Hour},
	"[engine].user":          {`"nobody"`, "nobody"},
	"[engine].group":         {`"nogroup"`, "nogroup"},
	"[engine].tls_workers":   {`1024`, 1024},
	"[engine].tls_nice":      {`19`, 19},
	"[engine].tls_cpus":      {`[0, 1023]`, []int{0, 1023}},
	"[engine].ticket_secret": {`"/etc/awe4lb/tickets"`, "/etc/awe4lb/tickets"},

	"[admin.users.NAME].password_hash": {`"` + someHash + `"`, someHash},
	"[admin.users.NAME].role":          {`"operate"`, "operate"},
	"[admin.tokens.NAME].token":        {`"0123456789abcdef"`, "0123456789abcdef"},
	"[admin.tokens.NAME].file":         {`"/etc/awe4lb/token"`, "/etc/awe4lb/token"},
	"[admin.tokens.NAME].role":         {`"configure"`, "configure"},
	"[admin.tls].cert":                 {`"/etc/a.pem"`, "/etc/a.pem"},
	"[admin.tls].key":                  {`"/etc/a.key"`, "/etc/a.key"},
	"[admin.tls].client_ca":            {`"/etc/ca.pem"`, "/etc/ca.pem"},
	"[admin.tls].client_role":          {`"configure"`, "configure"},
	"[admin.push].url":                 {`"https://127.0.0.1:8428/x"`, "https://127.0.0.1:8428/x"},
	"[admin.push].interval":            {`"1h"`, time.Hour},
	"[admin.push].labels":              {`'instance="a"'`, `instance="a"`},
	"[admin.push].bearer_token":        {`"x"`, "x"},

	"[acme].directory":    {`"https://localhost:14000/dir"`, "https://localhost:14000/dir"},
	"[acme].ca":           {`"/etc/pebble.pem"`, "/etc/pebble.pem"},
	"[acme].email":        {`"ops@example.com"`, "ops@example.com"},
	"[acme].eab_key_id":   {`"kid"`, "kid"},
	"[acme].eab_hmac_key": {`"AbC-_9"`, "AbC-_9"},
	"[acme].storage":      {`"/var/lib/awe4lb"`, "/var/lib/awe4lb"},
	"[acme].agree":        {`true`, true},

	"[engine].max_connections":                  {`2147483647`, 1<<31 - 1},
	"[defaults].connect_timeout":                {`"1ms"`, time.Millisecond},
	"[defaults].idle_timeout":                   {`"0s"`, time.Duration(0)},
	"[defaults].half_close_timeout":             {`"100ms"`, 100 * time.Millisecond},
	"[defaults].max_lifetime":                   {`"8760h"`, 8760 * time.Hour},
	"[defaults.tcp].nodelay":                    {`false`, false},
	"[defaults.tcp].keepalive":                  {`"32767s"`, 32767 * time.Second},
	"[defaults.tcp].user_timeout":               {`"1ms"`, time.Millisecond},
	"[defaults.tcp].backlog":                    {`65535`, 65535},
	"[defaults.tcp].fastopen":                   {`true`, true},
	"[frontends.NAME].bind":                     {`["127.0.0.1:8080"]`, []string{"127.0.0.1:8080"}},
	"[frontends.NAME].protocol":                 {"", nil}, // udp refuses the tables of tcp: TestGoodUDP
	"[frontends.NAME].pool":                     {`"other"`, "other"},
	"[frontends.NAME].max_connections":          {`1`, 1},
	"[frontends.NAME].unix_mode":                {`"0777"`, uint32(0o777)},
	"[frontends.NAME].idle_timeout":             {`"1h2m3s"`, time.Hour + 2*time.Minute + 3*time.Second},
	"[frontends.NAME].half_close_timeout":       {`"0s"`, time.Duration(0)},
	"[frontends.NAME].max_lifetime":             {`"1s"`, time.Second},
	"[frontends.NAME.tcp].nodelay":              {`false`, false},
	"[frontends.NAME.tcp].keepalive":            {`"0s"`, time.Duration(0)},
	"[frontends.NAME.tcp].user_timeout":         {`"24h"`, 24 * time.Hour},
	"[frontends.NAME.tcp].backlog":              {`1`, 1},
	"[frontends.NAME.tcp].fastopen":             {`true`, true},
	"[frontends.NAME.udp].mode":                 {`"datagram"`, "datagram"},
	"[frontends.NAME.udp].replies":              {"", nil}, // false asks for mode = "datagram": TestGoodUDP
	"[frontends.NAME.udp].buffer_size":          {`65507`, Size(65507)},
	"[frontends.NAME.udp].idle_timeout":         {`"24h"`, 24 * time.Hour},
	"[frontends.NAME.udp].unreplied_timeout":    {`"100ms"`, 100 * time.Millisecond},
	"[frontends.NAME.udp].max_flows":            {`16777216`, 1 << 24},
	"[frontends.NAME.udp].max_requests":         {`1`, 1},
	"[frontends.NAME.udp].max_responses":        {`2147483647`, 1<<31 - 1},
	"[frontends.NAME.udp].new_flow_rate":        {`1000000`, 1_000_000},
	"[frontends.NAME.udp].max_flows_per_source": {`100`, 100},
	"[frontends.NAME.udp].new_flow_prefix_v4":   {`32`, 32},
	"[frontends.NAME.udp].new_flow_prefix_v6":   {`128`, 128},
	"[frontends.NAME.udp].on_backend_gone":      {`"cut"`, "cut"},
	"[frontends.NAME.udp].transparent":          {`true`, true},
	"[frontends.NAME.udp].shared_source":        {`["10.200.0.0/16", "fd00:200::/64"]`, nil},
	"[frontends.NAME.udp].gso":                  {`false`, false},
	"[frontends.NAME.udp].gro":                  {`true`, true},
	"[frontends.NAME.udp].receive_buffer":       {`"64KiB"`, Size(64 << 10)},
	"[frontends.NAME.udp].reply_buffer":         {`"1GiB"`, Size(1 << 30)},
	"[[frontends.NAME.routes]].pool":            {`"other"`, "other"},
	"[[frontends.NAME.routes]].passthrough":     {`true`, true},
	"[frontends.NAME.routes.match].source":      {`["10.0.0.0/8"]`, nil},

	"[frontends.NAME].hello_timeout":               {`"100ms"`, 100 * time.Millisecond},
	"[frontends.NAME].bandwidth":                   {`"10MiB"`, Size(10 << 20)},
	"[frontends.NAME].bandwidth_per_source":        {`"1MiB"`, Size(1 << 20)},
	"[frontends.NAME].bandwidth_per_session":       {`"64KiB"`, Size(64 << 10)},
	"[frontends.NAME].max_connections_per_source":  {`9`, 9},
	"[frontends.NAME].connection_rate":             {`1000000`, 1000000},
	"[frontends.NAME].connection_burst":            {`5`, 5},
	"[frontends.NAME].connection_rate_per_source":  {`2`, 2},
	"[frontends.NAME].connection_burst_per_source": {`3`, 3},
	"[frontends.NAME].source_prefix_v4":            {`24`, 24},
	"[frontends.NAME].source_prefix_v6":            {`128`, 128},
	"[frontends.NAME].max_handshakes":              {`0`, 0},
	"[frontends.NAME].max_handshakes_per_prefix":   {`1048576`, 1048576},
	"[frontends.NAME].unknown_name":                {`"reject"`, "reject"},
	"[frontends.NAME].starttls":                    {`"postgres"`, "postgres"},
	"[frontends.NAME].acme_challenges":             {`true`, true},

	"[frontends.NAME.proxy_protocol].accept":     {`"off"`, "off"},
	"[frontends.NAME.proxy_protocol].trusted":    {`["10.0.0.0/8"]`, nil},
	"[frontends.NAME.access].default":            {`"deny"`, "deny"},
	"[[frontends.NAME.access.rules]].allow":      {`["10.0.0.0/8"]`, nil},
	"[[frontends.NAME.access.rules]].deny":       {`["10.0.0.0/8", "::/0"]`, nil},
	"[[frontends.NAME.access.rules]].allow_file": {`"/etc/allowed.txt"`, "/etc/allowed.txt"},
	"[[frontends.NAME.access.rules]].deny_file":  {`"/etc/blocked.txt"`, "/etc/blocked.txt"},
	"[pools.NAME].send_proxy":                    {`"v1"`, "v1"},
	"[pools.NAME].send_proxy_datagrams":          {"", nil}, // the same
	"[pools.NAME].proxy_tlvs":                    {"", nil}, // asks for send_proxy = "v2": TestGoodProxy

	"[frontends.NAME.tls].acme":              {`["www.Example.com."]`, []string{"www.example.com"}},
	"[frontends.NAME.tls].min_version":       {`"1.0"`, "1.0"},
	"[frontends.NAME.tls].max_version":       {`"1.2"`, "1.2"},
	"[frontends.NAME.tls].ciphers":           {`["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]`, []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}},
	"[frontends.NAME.tls].curves":            {`["X25519MLKEM768", "X25519"]`, []string{"X25519MLKEM768", "X25519"}},
	"[frontends.NAME.tls].alpn":              {`["h2", "http/1.1"]`, []string{"h2", "http/1.1"}},
	"[frontends.NAME.tls].handshake_timeout": {`"10m"`, 10 * time.Minute},
	"[frontends.NAME.tls].client_auth":       {`"request"`, "request"},
	"[frontends.NAME.tls].client_ca":         {`"/etc/clients.pem"`, "/etc/clients.pem"},
	"[frontends.NAME.tls].session_tickets":   {`false`, false},
	"[frontends.NAME.tls].ocsp_stapling":     {`false`, false},

	"[[frontends.NAME.tls.certificates]].cert":        {`"/etc/a.pem"`, "/etc/a.pem"},
	"[[frontends.NAME.tls.certificates]].key":         {`"/etc/a.key"`, "/etc/a.key"},
	"[[frontends.NAME.tls.certificates]].ocsp":        {`"/etc/a.ocsp"`, "/etc/a.ocsp"},
	"[[frontends.NAME.tls.certificates]].self_signed": {`["localhost", "*.Example.com", "127.0.0.1", "::1"]`, []string{"localhost", "*.example.com", "127.0.0.1", "::1"}},

	"[frontends.NAME.routes.match].sni":             {`["WWW.example.com.", "*.Example.com", ""]`, []string{"www.example.com", "*.example.com", ""}},
	"[frontends.NAME.routes.match].sni_starts_with": {`["WWW."]`, []string{"www."}},
	"[frontends.NAME.routes.match].sni_ends_with":   {`[".example.Com."]`, []string{".example.com"}},
	"[frontends.NAME.routes.match].sni_contains":    {`["-Test."]`, []string{"-test."}},
	"[frontends.NAME.routes.match].sni_regexp":      {`["[a-z]+[.]example[.]com"]`, []string{"[a-z]+[.]example[.]com"}},
	"[frontends.NAME.routes.match].alpn":            {`["h2"]`, []string{"h2"}},
	"[frontends.NAME.routes.match].not":             {`{ sni = ["A.b"] }`, &Match{SNI: []string{"a.b"}}},
	"[frontends.NAME.routes.match].any":             {`[{ sni = ["A.b"] }, { alpn = ["h2"] }]`, []*Match{{SNI: []string{"a.b"}}, {ALPN: []string{"h2"}}}},
	"[frontends.NAME.routes.match].all":             {`[{ not = { sni = [""] } }]`, []*Match{{Not: &Match{SNI: []string{""}}}}},

	"[engine].discovery_allow": {`["10.0.0.0/8"]`, nil},

	"[pools.NAME.discovery].kind":                  {`"file"`, "file"},
	"[[pools.NAME.discovery.sources]].kind":        {`"dns"`, "dns"},
	"[pools.NAME.discovery].interval":              {`"24h"`, 24 * time.Hour},
	"[pools.NAME.discovery].jitter":                {`50`, 50},
	"[pools.NAME.discovery].timeout":               {`"1ms"`, time.Millisecond},
	"[pools.NAME.discovery].retry_min":             {`"1h"`, time.Hour},
	"[pools.NAME.discovery].retry_max":             {`"10ms"`, 10 * time.Millisecond},
	"[pools.NAME.discovery].debounce":              {`"0s"`, time.Duration(0)},
	"[pools.NAME.discovery].on_failure":            {`"empty"`, "empty"},
	"[pools.NAME.discovery].max_age":               {`"1s"`, time.Second},
	"[pools.NAME.discovery].min_share":             {`100`, 100},
	"[pools.NAME.discovery].confirm":               {`0`, 0},
	"[pools.NAME.discovery].max_backends":          {`1048576`, 1 << 20},
	"[pools.NAME.discovery].save_to":               {`"/var/lib/awe4lb/web.json"`, "/var/lib/awe4lb/web.json"},
	"[pools.NAME.discovery.paths].list":            {`"data.items"`, "data.items"},
	"[pools.NAME.discovery.paths].address":         {`"a"`, "a"},
	"[pools.NAME.discovery.paths].host":            {`"ip"`, "ip"},
	"[pools.NAME.discovery.paths].port":            {`"ports[0]"`, "ports[0]"},
	"[pools.NAME.discovery.paths].weight":          {`"w"`, "w"},
	"[pools.NAME.discovery.paths].priority":        {`"p"`, "p"},
	"[pools.NAME.discovery.paths].zone":            {`"z"`, "z"},
	"[pools.NAME.discovery.paths].sni":             {`"name"`, "name"},
	"[pools.NAME.discovery.paths].labels":          {`"meta"`, "meta"},
	"[pools.NAME.discovery.paths].max_connections": {`"most"`, "most"},

	"[pools.NAME.tls].server_name":                    {`"Web.Internal."`, "web.internal"},
	"[pools.NAME.tls].ca":                             {`"/etc/ca.pem"`, "/etc/ca.pem"},
	"[pools.NAME.tls].cert":                           {`"/etc/us.pem"`, "/etc/us.pem"},
	"[pools.NAME.tls].key":                            {`"/etc/us.key"`, "/etc/us.key"},
	"[pools.NAME.tls].min_version":                    {`"1.3"`, "1.3"},
	"[pools.NAME.tls].max_version":                    {`"1.2"`, "1.2"},
	"[pools.NAME.tls].ciphers":                        {`["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]`, []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}},
	"[pools.NAME.tls].curves":                         {`["X25519"]`, []string{"X25519"}},
	"[pools.NAME.tls].alpn":                           {`["h2"]`, []string{"h2"}},
	"[pools.NAME.tls].handshake_timeout":              {`"100ms"`, 100 * time.Millisecond},
	"[pools.NAME.tls].starttls":                       {`"postgres"`, "postgres"},
	"[pools.NAME.tls].session_cache":                  {`false`, false},
	"[pools.NAME.tls].insecure_skip_verify":           {`true`, true},
	"[pools.NAME].policy":                             {`"random"`, "random"},
	"[engine].zone":                                   {`"b"`, "b"},
	"[pools.NAME].hash_key":                           {`"sni"`, "sni"},
	"[pools.NAME].hash_prefix_v4":                     {`0`, 0},
	"[pools.NAME].hash_prefix_v6":                     {`128`, 128},
	"[pools.NAME.persistence].key":                    {`"prefix"`, "prefix"},
	"[pools.NAME.persistence].prefix_v4":              {`0`, 0},
	"[pools.NAME.persistence].prefix_v6":              {`128`, 128},
	"[pools.NAME.persistence].ttl":                    {`"1s"`, time.Second},
	"[pools.NAME.persistence].max_entries":            {`1`, 1},
	"[pools.NAME.outliers].failures":                  {`1`, 1},
	"[pools.NAME.outliers].ejection":                  {`"1m"`, time.Minute},
	"[pools.NAME.outliers].max_ejection":              {`"24h"`, 24 * time.Hour},
	"[pools.NAME.outliers].max_ejected":               {`100`, 100},
	"[pools.NAME.outliers.success_rate].interval":     {`"1s"`, time.Second},
	"[pools.NAME.outliers.success_rate].min_requests": {`1`, 1},
	"[pools.NAME.outliers.success_rate].min_backends": {`2`, 2},
	"[pools.NAME.outliers.success_rate].deviation":    {`1`, 1},
	"[pools.NAME.outliers.success_rate].margin":       {`0`, 0},
	"[pools.NAME].max_connections":                    {`8`, 8},
	"[pools.NAME.queue].size":                         {`1048576`, 1 << 20},
	"[pools.NAME.queue].timeout":                      {`"1h"`, time.Hour},
	"[pools.NAME.queue].when_down":                    {`true`, true},
	"[engine].connection_rate":                        {`1000000`, 1000000},
	"[engine].connection_burst":                       {`5`, 5},
	"[pools.NAME].slow_start":                         {`"1h"`, time.Hour},
	"[pools.NAME].panic_threshold":                    {`100`, 100},
	"[pools.NAME].prefer_zone":                        {`true`, true},
	"[pools.NAME].subset":                             {`65535`, 65535},
	"[engine].name":                                   {`"lb1"`, "lb1"},
	"[[pools.NAME.backends]].zone":                    {`"b"`, "b"},
	"[pools.NAME].connect_timeout":                    {`"10m"`, 10 * time.Minute},
	"[pools.NAME].connect_attempts":                   {`16`, 16},
	"[pools.NAME].source":                             {`["10.0.0.1"]`, nil},
	"[pools.NAME.tcp].nodelay":                        {`false`, false},
	"[pools.NAME.tcp].keepalive":                      {`"1s"`, time.Second},
	"[pools.NAME.tcp].user_timeout":                   {`"1s"`, time.Second},
	"[pools.NAME.tcp].backlog":                        {"", nil}, // not for pools
	"[pools.NAME.tcp].fastopen":                       {`true`, true},
	"[pools.NAME].on_down":                            {`"cut"`, "cut"},
	"[pools.NAME].on_removed":                         {`"drain"`, "drain"},
	"[pools.NAME].on_maintenance":                     {`"cut"`, "cut"},
	"[pools.NAME].drain_timeout":                      {`"90s"`, 90 * time.Second},
	"[pools.NAME].drain_rate":                         {`50`, 50},

	"[pools.NAME.health].kind":                 {`"redis"`, "redis"},
	"[pools.NAME.health].interval":             {`"24h"`, 24 * time.Hour},
	"[pools.NAME.health].interval_down":        {`"100ms"`, 100 * time.Millisecond},
	"[pools.NAME.health].timeout":              {`"2s"`, 2 * time.Second},
	"[pools.NAME.health].rise":                 {`1`, 1},
	"[pools.NAME.health].fall":                 {`1000`, 1000},
	"[pools.NAME.health].initial":              {`"checking"`, "checking"},
	"[pools.NAME.health].jitter":               {`0`, 0},
	"[pools.NAME.health].address":              {`"10.0.0.2"`, netip.MustParseAddr("10.0.0.2")},
	"[pools.NAME.health].port":                 {`65535`, 65535},
	"[pools.NAME.health].source":               {`"::ffff:10.0.0.3"`, netip.MustParseAddr("10.0.0.3")},
	"[pools.NAME.health].tls":                  {`"yes"`, "yes"},
	"[pools.NAME.health].server_name":          {`"Web.Internal."`, "web.internal"},
	"[pools.NAME.health].ca":                   {`"/etc/ca.pem"`, "/etc/ca.pem"},
	"[pools.NAME.health].cert":                 {`"/etc/us.pem"`, "/etc/us.pem"},
	"[pools.NAME.health].key":                  {`"/etc/us.key"`, "/etc/us.key"},
	"[pools.NAME.health].insecure_skip_verify": {`true`, true},
	"[pools.NAME.health].expiry_warning":       {`"0s"`, time.Duration(0)},
	"[pools.NAME.health].method":               {`"HEAD"`, "HEAD"},
	"[pools.NAME.health].path":                 {`"/health?a=b"`, "/health?a=b"},
	"[pools.NAME.health].host":                 {`"www.example.com:81"`, "www.example.com:81"},
	"[pools.NAME.health].headers":              {`["X-Check:  yes"]`, []string{"X-Check: yes"}},
	"[pools.NAME.health].status":               {`"200, 204-299"`, "200, 204-299"},
	"[pools.NAME.health].body":                 {`"ok"`, "ok"},
	"[pools.NAME.health].body_regexp":          {`"^ok$"`, "^ok$"},
	"[pools.NAME.health].follow_redirects":     {`true`, true},
	"[pools.NAME.health].service":              {`"shop.Cart"`, "shop.Cart"},
	"[pools.NAME.health].send":                 {`'a\r\n\x00'`, `a\r\n\x00`},
	"[pools.NAME.health].expect":               {`'\xff'`, `\xff`},
	"[pools.NAME.health].expect_regexp":        {`'^\d'`, `^\d`},
	"[pools.NAME.health].read_limit":           {`"1MiB"`, Size(1 << 20)},
	"[pools.NAME.health].command":              {`["/bin/check", "$host", "$port"]`, []string{"/bin/check", "$host", "$port"}},
	"[pools.NAME.health].output_up":            {`"1"`, "1"},
	"[pools.NAME.health].output_down":          {`"0"`, "0"},
	"[pools.NAME.health].user":                 {`"awe4lb"`, "awe4lb"},
	"[pools.NAME.health].password":             {`"x"`, "x"},
	"[pools.NAME.health].database":             {`"db"`, "db"},
	"[pools.NAME.health].query":                {`"SELECT 1"`, "SELECT 1"},
	"[pools.NAME.health].pool":                 {`"other"`, "other"},
	"[pools.NAME.health].follow":               {`"any"`, "any"},

	"[[pools.NAME.backends]].address":         {`"10.0.0.1:80"`, Address{IP: mustAddrPort("10.0.0.1:80")}},
	"[[pools.NAME.backends]].weight":          {`1000`, 1000},
	"[[pools.NAME.backends]].priority":        {`255`, 255},
	"[[pools.NAME.backends]].max_connections": {`7`, 7},
}

// someHash is bcrypt's of "secret".
const someHash = "$2a$04$w7/jj6PG8JjWB4Kjznmc3OYM6p1m9lkVMBS3uT/y0HvHzKam.ZOCy"

// sourceValues is keyValues for the keys of sources.
var sourceValues = map[string]struct {
	toml string
	want any
}{
	"path": {`"/etc/other"`, "/etc/other"}, "format": {`"toml"`, "toml"}, "line": {`'^(?P<host>\S+)$'`, `^(?P<host>\S+)$`}, "lenient": {`true`, true},
	"max_bytes": {`"64MiB"`, Size(64 << 20)}, "command": {`["/bin/b", "c"]`, []string{"/bin/b", "c"}}, "env": {`["A=b"]`, []Secret{"A=b"}},
	"folder": {`"/tmp"`, "/tmp"}, "url": {`"http://10.0.0.1:8500/x"`, nil}, "headers": {`["X-Key:  k"]`, []Secret{"X-Key: k"}},
	"user": {`"u"`, "u"}, "password": {`"p"`, Secret("p")}, "password_file": {`"/run/p"`, "/run/p"}, "token": {`"t"`, Secret("t")},
	"token_file": {`"/run/t"`, "/run/t"}, "allow": {`["127.0.0.1"]`, nil}, "ca": {`"/etc/ca.pem"`, "/etc/ca.pem"}, "cert": {`"/etc/us.pem"`, "/etc/us.pem"},
	"key": {`"/etc/us.key"`, "/etc/us.key"}, "server_name": {`"Web.Internal."`, "web.internal"}, "insecure_skip_verify": {`true`, true},
	"name": {`"_http._tcp.Web.Internal."`, "_http._tcp.web.internal"}, "port": {`65535`, 65535}, "family": {`"ipv6"`, "ipv6"},
	"servers": {`["10.0.0.53", "[::1]:5353", "::1"]`, []string{"10.0.0.53", "[::1]:5353", "::1"}}, "min_ttl": {`"100ms"`, 100 * time.Millisecond},
	"max_ttl": {`"24h"`, 24 * time.Hour}, "service": {`"api"`, "api"}, "tags": {`["v2"]`, []string{"v2"}}, "warning": {`true`, true},
	"datacenter": {`"dc2"`, "dc2"}, "namespace": {`"ns"`, "ns"}, "partition": {`"p"`, "p"}, "wait": {`"10m"`, 10 * time.Minute},

	"labels": {`["a=b", "c"]`, []string{"a=b", "c"}}, "filters": {`["name=a"]`, []string{"name=a"}}, "protocol": {`"udp"`, "udp"}, "network": {`"n"`, "n"},
	"published": {`true`, true}, "host": {`"10.0.0.7"`, netip.MustParseAddr("10.0.0.7")}, "host_env": {`"HOST"`, "HOST"}, "sni_label": {`"sni"`, "sni"},
	"unhealthy": {`true`, true}, "resync": {`"1h"`, time.Hour}, "docker url": {`"tcp://10.0.0.1:2376"`, "tcp://10.0.0.1:2376"},
	"fingerprint": {`"` + someSum + `"`, someSum}, "project": {`"*"`, "*"}, "config_key": {`"user.k"`, "user.k"}, "config_value": {`"v"`, "v"},
	"port_key": {`"user.p"`, "user.p"}, "interface": {`"eth1"`, "eth1"}, "interface_key": {`"user.i"`, "user.i"}, "sni_key": {`"user.s"`, "user.s"},
	"lxd url": {`"https://10.0.0.1:8443"`, "https://10.0.0.1:8443"}, "selector": {`"app=web"`, "app=web"}, "kubernetes port": {`"8080"`, "8080"},
	"kubernetes url": {`"https://10.0.0.1:6443"`, "https://10.0.0.1:6443"},
	"node_port":      {`true`, true}, "node_address": {`"ExternalIP"`, "ExternalIP"}, "kubeconfig": {`"/etc/kube"`, "/etc/kube"}, "context": {`"c"`, "c"},
	"endpoints": {`["http://10.0.0.1:2379"]`, []string{"http://10.0.0.1:2379"}}, "prefix": {`"/b/"`, "/b/"}, "redis name": {`"web:backends"`, "web:backends"},
	"redis url": {`"unix:///run/redis.sock"`, "unix:///run/redis.sock"}, "db": {`65535`, 65535},
}

// someSum is a SHA-256.
const someSum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// TestEveryKey walks the structs: each key accepts a valid value, stores it, and has a line of its own.
func TestEveryKey(t *testing.T) {
	seen := 0
	for _, tb := range tables() {
		for _, k := range keysOf(tb.typ) {
			if inner := k.field.Type; inner.Kind() == reflect.Struct && !isValue(inner) ||
				(inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Pointer) &&
					!strings.Contains(inner.String(), "Match") {
				continue // a table: its keys follow
			}
			name := tb.label + "." + k.key
			value, ok := keyValues[name]
			if _, kind, is := strings.Cut(tb.label, " with kind = "); is {
				if value, ok = sourceValues[strings.Trim(kind, `"`)+" "+k.key]; !ok {
					value, ok = sourceValues[k.key]
				}
				if ok {
					seen--
				}
			}
			if !ok {
				t.Errorf("%s: no value to try", name)
				continue
			}
			seen++
			if value.toml == "" {
				continue
			}
			cfg, err := Parse("test.toml", []byte(documentWith(tb.label, k.key, value.toml)))
			if err != nil {
				t.Errorf("%s = %s: %v", name, value.toml, err)
				continue
			}
			holder := find(reflect.ValueOf(cfg), tb.typ, tb.label)
			if got := holder.FieldByIndex(k.index).Interface(); value.want != nil && !reflect.DeepEqual(got, value.want) {
				t.Errorf("%s = %s: got %v; want %v", name, value.toml, got, value.want)
			}
			if reflect.ValueOf(holder.FieldByIndex(k.index).Interface()).IsZero() && value.want == nil {
				t.Errorf("%s = %s: nothing was stored", name, value.toml)
			}
		}
	}
	if seen != len(keyValues) {
		t.Errorf("%d keys in the structs, %d in keyValues", seen, len(keyValues))
	}
}

// documentWith returns a valid document in which one key of one table is set.
func documentWith(label, key, value string) string {
	doc := map[string][]string{
		"[frontends.NAME]":              {`bind = ["127.0.0.1:8080"]`, `pool = "NAME"`},
		"[[frontends.NAME.routes]]":     {`pool = "NAME"`},
		"[frontends.NAME.routes.match]": {`source = ["10.1.0.0/16"]`},
		"[[pools.NAME.backends]]":       {`address = "10.0.0.9:80"`},

		"[[frontends.NAME.tls.certificates]]": {`cert = "/etc/x.pem"`},
		"[[frontends.NAME.access.rules]]":     {`allow = ["10.2.0.0/16"]`},
		"[pools.other]":                       nil,

		"[admin.users.NAME]":  {`password_hash = "` + someHash + `"`},
		"[admin.tokens.NAME]": {`token = "abcdefghijklmnopqrstuvwxyz"`},
		"[admin.tls]":         {`cert = "/etc/x.pem"`},
	}
	if label == "[pools.NAME.health]" {
		doc[label] = healthWith(key)
	}
	if label == "[[frontends.NAME.access.rules]]" {
		doc[label] = nil // exactly one key
	}
	kind, ofKind := strings.CutPrefix(label, `[pools.NAME.discovery] with kind = `)
	switch {
	case label == "[[pools.NAME.discovery.sources]]":
		doc[label] = sourceWith("dns", key)
	case ofKind:
		label = "[pools.NAME.discovery]"
		doc[label] = sourceWith(strings.Trim(kind, `"`), key)
	default:
		doc["[pools.NAME.discovery]"] = sourceWith("file", "")
	}
	doc[label] = slices.DeleteFunc(doc[label], func(line string) bool { return strings.HasPrefix(line, key+" =") })
	doc[label] = append(doc[label], key+" = "+value)
	protocol := "[frontends.NAME.tcp]"
	if label == "[frontends.NAME.udp]" {
		protocol = label
		doc["[frontends.NAME]"] = append(doc["[frontends.NAME]"], `protocol = "udp"`)
	}
	switch key {
	case "group":
		doc[label] = append(doc[label], `user = "nobody"`)
	case "file":
		doc[label] = doc[label][1:] // either token or file
	case "client_role":
		doc[label] = append(doc[label], `client_ca = "/etc/ca.pem"`)
	case "eab_key_id":
		doc[label] = append(doc[label], `eab_hmac_key = "AbC"`)
	case "eab_hmac_key":
		doc[label] = append(doc[label], `eab_key_id = "kid"`)
	case "client_auth":
		doc[label] = append(doc[label], `client_ca = "/etc/clients.pem"`)
	case "acme":
		doc["[acme]"] = append(doc["[acme]"], "agree = true")
	case "key":
		if label == "[pools.NAME.tls]" {
			doc[label] = append(doc[label], `cert = "/etc/us.pem"`)
		}
	}
	labels := []string{"[log]", "[log.access]", "[admin]", "[admin.users.NAME]", "[admin.tokens.NAME]", "[admin.tls]", "[admin.push]", "[engine]", "[acme]", "[defaults]", "[defaults.tcp]", "[frontends.NAME]",
		protocol, "[frontends.NAME.proxy_protocol]", "[frontends.NAME.access]", "[[frontends.NAME.access.rules]]", "[frontends.NAME.tls]", "[[frontends.NAME.tls.certificates]]", "[[frontends.NAME.routes]]", "[frontends.NAME.routes.match]",
		"[pools.NAME]", "[pools.NAME.tcp]", "[pools.NAME.tls]", "[pools.NAME.persistence]", "[pools.NAME.queue]", "[pools.NAME.outliers]", "[pools.NAME.outliers.success_rate]", "[pools.NAME.health]", "[pools.NAME.discovery]", "[pools.NAME.discovery.paths]", "[[pools.NAME.discovery.sources]]", "[[pools.NAME.backends]]", "[pools.other]"}
	labels = slices.DeleteFunc(labels, func(l string) bool {
		return strings.HasSuffix(l, "sources]]") && l != label || strings.HasSuffix(l, "paths]") && l != label
	})
	if label == "[frontends.NAME.udp]" || key == "acme_challenges" {
		labels = slices.DeleteFunc(labels, func(label string) bool { return strings.Contains(label, ".tls") || strings.Contains(label, ".proxy") })
	}
	var b strings.Builder
	for _, label := range labels {
		b.WriteString(label + "\n" + strings.Join(doc[label], "\n") + "\n")
	}
	return b.String()
}

// healthWith returns what a health table has to have so that a key may be there.
func healthWith(key string) []string {
	kind := "tcp"
	if kinds := keysOfKind[key]; len(kinds) > 0 {
		kind = kinds[0]
	}
	lines := []string{`kind = "` + kind + `"`}
	switch {
	case kind == "exec":
		lines = append(lines, `command = ["/bin/true"]`)
	case kind == "agent":
		lines = append(lines, `port = 1`)
	case kind == "pool":
		lines = append(lines, `pool = "other"`)
	}
	switch key {
	case "key":
		lines = append(lines, `cert = "/etc/us.pem"`)
	case "database", "query":
		lines = append(lines, `user = "u"`)
	case "expect":
		lines[0] = `kind = "tls"`
	}
	return lines
}

// sourceWith returns what a source has to have so that a key may be there.
func sourceWith(kind, key string) []string {
	lines := append([]string{`kind = "` + kind + `"`}, map[string][]string{
		"file": {`path = "/etc/backends"`}, "exec": {`command = ["/bin/backends"]`}, "http": {`url = "https://catalog.internal/"`},
		"dns": {`name = "web.internal"`, `port = 80`}, "srv": {`name = "_http._tcp.web.internal"`},
		"consul": {`url = "http://127.0.0.1:8500"`, `service = "web"`},
		"docker": {`url = "https://10.0.0.1:2376"`}, "lxd": {`url = "https://10.0.0.1:8443"`, `cert = "/etc/us.pem"`, `key = "/etc/us.key"`},
		"kubernetes": {`url = "https://10.0.0.1:6443"`, `service = "web"`}, "etcd": {`endpoints = ["https://10.0.0.1:2379"]`, `prefix = "/backends/"`},
		"redis": {`url = "rediss://10.0.0.1:6379"`, `name = "web"`},
	}[kind]...)
	drop := func(keys ...string) {
		lines = slices.DeleteFunc(lines, func(line string) bool { name, _, _ := strings.Cut(line, " ="); return slices.Contains(keys, name) })
	}
	switch key {
	case "user":
		if kind == "etcd" || kind == "redis" {
			lines = append(lines, `password = "p"`)
		}
	case "config_value":
		lines = append(lines, `config_key = "user.k"`)
	case "selector":
		drop("service")
	case "kubeconfig":
		drop("url")
	case "context":
		drop("url")
		lines = append(lines, `kubeconfig = "/etc/kube"`)
	case "node_address":
		lines = append(lines, `node_port = true`)
	case "cert":
		lines = append(lines, `key = "/etc/us.key"`)
	case "key":
		lines = append(lines, `cert = "/etc/us.pem"`)
	case "password", "password_file":
		if kind == "http" || kind == "etcd" {
			lines = append(lines, `user = "awe4lb"`)
		}
	}
	if kind == "lxd" && (key == "cert" || key == "key") { // which it has already
		lines = lines[:4]
	}
	return lines
}

// find returns the struct of the type t that the label stands for; the first of each kind.
func find(v reflect.Value, t reflect.Type, label string) reflect.Value {
	v = reflect.Indirect(v)
	cfg := v.Interface().(Config)
	discovery := cfg.Pool("NAME").Discovery
	label, kind, _ := strings.Cut(label, " with kind = ")
	switch {
	case kind != "": // of another kind: as it would be
		o := reflect.ValueOf(discovery.Options)
		if !o.IsValid() || o.Type().Elem() != t {
			o = reflect.ValueOf(sourceKinds[strings.Trim(kind, `"`)].fresh())
		}
		return o.Elem()
	case t == reflect.TypeFor[ListPaths]():
		return reflect.ValueOf(&discovery.Options.(*FileSource).Paths).Elem()
	case t == reflect.TypeFor[Source]():
		return reflect.ValueOf(discovery.All()[0]).Elem()
	}
	for part := range strings.SplitSeq(strings.Trim(label, "[]"), ".") {
		if part == "NAME" {
			continue
		}
		for _, k := range keysOf(v.Type()) {
			if k.key == part {
				v = v.FieldByIndex(k.index)
				if v.Kind() == reflect.Slice {
					v = v.Index(0)
				}
				v = reflect.Indirect(v)
				break
			}
		}
	}
	if v.Type() != t {
		panic("no " + label)
	}
	return v
}

// TestTags: every range in config.go can be read, and holds the default.
func TestTags(t *testing.T) {
	cfg, err := Parse("test.toml", []byte(documentWith("[pools.other]", "policy", `"random"`)))
	if err != nil {
		t.Fatal(err)
	}
	for _, tb := range tables() {
		holder := find(reflect.ValueOf(cfg), tb.typ, tb.label)
		for _, k := range keysOf(tb.typ) {
			v := holder.FieldByIndex(k.index)
			switch v.Kind() {
			case reflect.Int, reflect.Int64:
				if tb.typ == reflect.TypeFor[DNSSource]() && k.key == "port" {
					continue // required
				}
				if b := boundsOf(v.Type(), k.field.Tag); !b.contain(v.Int()) || b.lo > b.hi {
					t.Errorf("%s.%s: default %d is not in %+v", tb.label, k.key, v.Int(), b)
				}
			case reflect.Uint32:
				if b := boundsOf(v.Type(), k.field.Tag); !b.contain(int64(v.Uint())) {
					t.Errorf("%s.%s: default %o is not in %+v", tb.label, k.key, v.Uint(), b)
				}
			case reflect.String:
				if tb.typ == reflect.TypeFor[PoolTLS]() && k.key == "starttls" {
					continue // "": that of the frontend
				}
				if words := k.field.Tag.Get("oneof"); words != "" && !slices.Contains(strings.Fields(words), v.String()) {
					t.Errorf("%s.%s: default %q is not one of %s", tb.label, k.key, v.String(), words)
				}
			}
		}
	}
}

func TestInheritance(t *testing.T) {
	parse := func(text string) *Config {
		t.Helper()
		cfg, err := Parse("test.toml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	const rest = `
[frontends.a]
bind = ["127.0.0.1:8080"]
[frontends.b]
bind = ["127.0.0.1:8081"]
idle_timeout = "0s"
max_lifetime = "1h"
tcp.nodelay = true
[pools.a]
[pools.b]
connect_timeout = "9s"
tcp = { keepalive = "0s" }
`
	cfg := parse(rest + `
[defaults]
connect_timeout = "1s"
idle_timeout = "2s"
half_close_timeout = "3s"
max_lifetime = "4s"
tcp = { nodelay = false, keepalive = "5s", user_timeout = "6s", backlog = 7, fastopen = true }
`)
	a, b := cfg.Frontend("a"), cfg.Frontend("b")
	if a.IdleTimeout != 2*time.Second || a.HalfCloseTimeout != 3*time.Second || a.MaxLifetime != 4*time.Second || a.TCP != cfg.Defaults.TCP {
		t.Errorf("a frontend that sets nothing: %+v", a)
	}
	wantTCP := cfg.Defaults.TCP
	wantTCP.NoDelay = true
	if b.IdleTimeout != 0 || b.HalfCloseTimeout != 3*time.Second || b.MaxLifetime != time.Hour || b.TCP != wantTCP {
		t.Errorf("a frontend that sets some: %+v", b)
	}
	wantTCP = cfg.Defaults.TCP
	wantTCP.Backlog = 0
	if p := cfg.Pool("a"); p.ConnectTimeout != time.Second || p.TCP != wantTCP {
		t.Errorf("a pool that sets nothing: %+v", p)
	}
	wantTCP.Keepalive = 0
	if p := cfg.Pool("b"); p.ConnectTimeout != 9*time.Second || p.TCP != wantTCP {
		t.Errorf("a pool that sets some: %+v", p)
	}

	cfg = parse(rest)
	if a := cfg.Frontend("a"); a.IdleTimeout != 10*time.Minute || !a.TCP.NoDelay {
		t.Errorf("without [defaults]: %+v", a)
	}
	for _, c := range []struct{ text, want string }{
		{"", "text"},
		{"[log]\nformat = 'json'", "json"},
		{"[log]\nformat = 'json'\naccess = { format = 'text' }", "text"},
	} {
		if got := parse(c.text).Log.Access.Format; got != c.want {
			t.Errorf("%q: access format %q; want %q", c.text, got, c.want)
		}
	}
}
