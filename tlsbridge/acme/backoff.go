package acme

import (
	"math/rand/v2"
	"time"
)

// How long to wait after the first, second, … failure in a row; the last one repeats. A CA that did answer has counted the
// attempt against a limit: Let's Encrypt allows five failed validations for a name in an hour, and an attempt may use two,
// one for each kind of challenge.
var (
	afterSilence = []time.Duration{time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, time.Hour}
	afterAnswer  = []time.Duration{5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour}
)

// rateLimitedWait is how long to wait at the least when the CA says that we ask too often; its limits count by the hour.
const rateLimitedWait = time.Hour

// backoff returns how long to wait after so many failures in a row, one at least; answered: the CA, and not the network,
// said no. A tenth more or less, so that names that failed together do not come back together.
func backoff(failures int, answered bool) time.Duration {
	waits := afterSilence
	if answered {
		waits = afterAnswer
	}
	d := waits[min(failures, len(waits))-1]
	return d - d/10 + rand.N(d/5)
}
