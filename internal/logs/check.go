package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"awe4lb/config"
)

// Check returns what would keep Prepare from opening the files of cfg. It makes none.
func Check(cfg config.Log) []error {
	var errs []error
	for _, o := range []struct{ key, output string }{{"log.output", cfg.Output}, {"log.access.output", cfg.Access.Output}} {
		switch o.output {
		case "", "stdout", "stderr":
			continue
		}
		if err := checkFile(o.output); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", o.key, err))
		}
	}
	return errs
}

func checkFile(path string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|syscall.O_NONBLOCK, 0) // a named pipe must not block
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, syscall.ENXIO): // a named pipe that nobody reads: a reader may come
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	const writeAndSearch = 3 // W_OK|X_OK
	dir := filepath.Dir(path)
	if err := syscall.Access(dir, writeAndSearch); err != nil {
		return fmt.Errorf("%s: directory %s: %w", path, dir, err)
	}
	return nil
}
