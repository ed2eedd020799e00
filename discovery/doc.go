// Package discovery finds out which backends a pool has, and keeps its head when the source is wrong, slow, empty or gone.
//
// A Source answers with a whole List. A Runner, one per pool, asks its sources, judges what they say, merges it with the
// static backends and reports the list whenever it has become another. It knows nothing of snapshots, health or sessions:
// who gets the list decides what to do with a backend that is new or gone.
//
//	r, err := discovery.New("web", []discovery.Source{source}, discovery.Defaults())
//	first := r.List()           // static backends and the list of the last run; nothing was asked yet
//	go r.Run(ctx, func(list []discovery.Backend) { … })
//
// The kinds of source are file, exec, http, dns, srv, consul, docker, lxd, kubernetes, etcd and redis, each in the file of its
// name, made by NewFile and so on. Decisions 0040 to 0049 say why they are as they are.
//
// # The states of a source
//
//	         New
//	          │ nothing saved          saved
//	          ├──────────▶ WAITING    RESTORED ◀── New, Inherit
//	                          │          │
//	  ┌───────────────────────┴──────────┴───────────────────────┐
//	  ▼ taken                 ▼ held back                        ▼ failed
//	FRESH ◀──────────────▶ HOLDING ◀───────────────────────▶ FAILING
//	  ▲   taken, confirmed    │                                  │
//	  │   or Accept           │ MaxAge over, from any state      │
//	  │                       ▼ that has a list                  │
//	  └─────────────────── STALE ◀───────────────────────────────┘
//	           taken
//
// taken: the answer is in use. That is so when it has at least MinShare of the backends in use, and is not empty while
// some are (see guard). held back: it is not, yet: the list before it stays. After Confirm more answers like it, it is
// taken; an empty one never is under Keep, only when Accept is called. failed: no answer. Under Keep the list before it
// stays, under Empty there is none. The next attempts come after RetryMin, doubled with each failure up to RetryMax. STALE:
// neither held back nor failed answers make a list younger; after MaxAge it goes. Each state but STALE is left by the next
// answer or failure; STALE only by an answer.
//
// # Who owns what
//
// Each source has a goroutine, which alone calls Fetch or Watch. Run's own goroutine collects changes for Debounce, calls
// report, and saves the lists. Everything they share is guarded by Runner.mu, which is never held while a source, a
// file or report is called.
package discovery
