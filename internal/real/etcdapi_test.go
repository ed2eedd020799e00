//go:build real

package real

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"
)

var client = &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// health returns what an etcd says of itself, or "".
func health(url string) string {
	res, err := client.Get(url + "/health")
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return string(b)
}

// leaderOf returns the place of the member that leads.
func leaderOf(urls []string) (int, bool) {
	for i, u := range urls {
		res, err := client.Post(u+"/v3/maintenance/status", "application/json", strings.NewReader("{}"))
		if err != nil {
			continue
		}
		var s struct {
			Header struct {
				Member string `json:"member_id"`
			}
			Leader string
		}
		err = json.NewDecoder(res.Body).Decode(&s)
		res.Body.Close()
		if err == nil && s.Leader != "" && s.Leader == s.Header.Member {
			return i, true
		}
	}
	return 0, false
}
