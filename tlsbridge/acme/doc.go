// Package acme gets certificates from a certificate authority (CA) that speaks ACME (RFC 8555), keeps them fresh, and knows
// the answers to the CA's challenges. It listens on nothing: frontends that are there anyway give the answers, those of
// TLS-ALPN-01 (RFC 8737) from Challenge and those of HTTP-01 from HTTP01.
//
//	issuer := acme.New(log)
//	err := issuer.Manage(cfg.ACME, []string{"www.example.com"}) // again at each reload
//	issuer.Certificate("www.example.com")                       // at once, if the storage folder has one
//	<-issuer.Changed()                                          // ask for it again
//	issuer.Close()
//
// # Which part does what
//
//	issuer.go       what callers see: Issuer
//	engine.go       one [acme] table at work: settings, storage, the CA, a task for each name
//	task.go         when a certificate is due, the attempt, what follows a failure
//	authority.go    the CA: how an order is made; certmagic calls it
//	account.go      our account there: kept, registered, replaced when the CA has ended it
//	challenges.go   what to answer, for frontends to read without a lock
//	sharing.go      the same for processes that share the storage: the CA may ask another one than has ordered
//	storage.go      the folder: its permissions, locks between processes
//	backoff.go      how long to wait after a failure
//	explain.go      errors, with what to do about them
//
// certmagic lays out the storage, makes keys and requests, and obtains a certificate under a lock. Its solvers, which bind
// the challenges' ports, its cache, its maintenance and its log are not used (docs/decisions/0026-acme.md).
//
// # A name
//
//	         no certificate                 there is one
//	Manage ──▶ Wanted                   Manage ──▶ Valid ◀───────────┐
//	              │                                  │ due           │ the new one is read back,
//	              │                                  ▼               │ parses and covers the name
//	              └──────────────────────────▶ Ordering ─────────────┘
//	                                            ▲    │ failed
//	                             backoff over   │    ▼
//	                                          Failing
//
// In each state the last certificate that was good is handed out, an expired one too: it tells clients more than a
// certificate for another name would. A certificate is due when two thirds of its life are over, or earlier if the CA says
// so (ARI, RFC 9773).
//
// # Who owns what
//
// Each name has a goroutine (task.run), started by Manage and ended by the Manage that drops the name or by Close, and each
// engine one more (engine.watch). Close waits for all of them. Certificates and challenges are immutable maps behind atomic pointers: any goroutine may ask, a shard too.
package acme
