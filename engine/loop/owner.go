//go:build !race

package loop

type owner struct{}

func (*owner) take() {}

// Assert panics in -race builds when the caller is not the loop's goroutine; here it is free.
func (l *Loop) Assert() {}
