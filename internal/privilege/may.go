package privilege

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"syscall"
)

// MayRun returns why the caller's thread may not run a program, or nil. The program is a path, or a name that is looked for in PATH.
// Nothing is run: what the program itself lacks does not show.
func MayRun(program string) error {
	_, err := exec.LookPath(program)
	var whose *exec.Error
	var where *fs.PathError
	switch {
	case errors.As(err, &where): // it is in the other, which repeats the path
		return where
	case errors.As(err, &whose):
		return fmt.Errorf("%s: %w", whose.Name, whose.Err)
	}
	return err
}

// MayEnter returns why a program that the caller's thread starts may not have a folder as its own, or nil.
func MayEnter(folder string) error {
	const search = 1 // X_OK
	if err := syscall.Access(folder+"/.", search); err != nil {
		return fmt.Errorf("directory %s: %w", folder, err)
	}
	return nil
}
