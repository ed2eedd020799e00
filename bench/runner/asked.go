package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// awe4lb while many watch it: askers clients of the API, each on a connection of its own that it keeps, ask for what pages and
// scripts ask for and pause in between.

const (
	askers   = 200
	askPause = 2 * time.Second // between the requests of one client
)

var askedPaths = []string{"/api/v1/pools", "/api/v1/status", "/api/v1/frontends", "/api/v1/health", "/healthz"}

// ask has the clients ask until ctx is done. It reports what went wrong with the first of them.
func ask(ctx context.Context, p Place) error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: askers}}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	failed := make(chan error, askers)
	for i := range askers {
		all.Go(func() {
			if err := askOnce(ctx, client, "http://"+p.AskAt+"/healthz"); err != nil && ctx.Err() == nil { // all are there from the start
				failed <- err
				return
			}
			for n, wait := i, rand.N(askPause); ; n, wait = n+1, askPause { // not all at once
				select {
				case <-ctx.Done():
					return
				case <-time.After(wait):
				}
				if err := askOnce(ctx, client, "http://"+p.AskAt+askedPaths[n%len(askedPaths)]); err != nil && ctx.Err() == nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return errors.Join(errors.New("asking the API"), err)
	default:
		return nil
	}
}

func askOnce(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	return nil
}
