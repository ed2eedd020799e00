package balancer

import (
	"fmt"
	"testing"
)

func TestHistory(t *testing.T) {
	var h history
	for i := range 2*maxEvents + 7 {
		h.add(Event{Why: fmt.Sprint(i)})
		all := h.newest()
		if len(all) != min(i+1, maxEvents) || all[0].Why != fmt.Sprint(i) || all[len(all)-1].Why != fmt.Sprint(max(0, i+1-maxEvents)) {
			t.Fatalf("after %d: %d events, from %s to %s", i, len(all), all[0].Why, all[len(all)-1].Why)
		}
	}
}
