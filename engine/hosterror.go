package engine

import "fmt"

// HostError says that the configuration names something this host does not have, such as an address to connect from: the
// file may be right elsewhere, or here at another time.
type HostError struct {
	Key string // of the configuration
	Err error
}

func (e *HostError) Error() string { return fmt.Sprintf("%s: %v", e.Key, e.Err) }

func (e *HostError) Unwrap() error { return e.Err }
