package discovery

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"

	"awe4lb/config"
	"awe4lb/internal/privilege"
)

// Check returns the mistakes that Prepare would find at the start. It asks no source.
func Check(cfg *config.Config) (errs []error) {
	for _, p := range cfg.Pools {
		if p.Discovery == nil {
			continue
		}
		for _, s := range p.Discovery.All() {
			if _, err := newSource(s); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", placeOf(cfg, p), err))
			}
		}
	}
	return errs
}

// CheckHost returns what Check does, and what else sources would fail by on this host: secrets that cannot be read, programs
// that cannot be run, or not where they are to, folders that cannot be written to, and what a kubeconfig names. The notes tell of
// secrets that everybody here may read. It is to be called with the rights that sources have. It asks no source, starts nothing and
// writes nothing.
func CheckHost(cfg *config.Config) (errs []error, notes []string) {
	errs = Check(cfg)
	for _, p := range cfg.Pools {
		if p.Discovery == nil {
			continue
		}
		wrong := func(field *string, key string, err error) {
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", fieldPlace(cfg, p, field, key), err))
			}
		}
		public := func(field *string, key, path string) {
			if isPublic(path) {
				notes = append(notes, fmt.Sprintf("%s: everybody on this host may read %s: chmod 600 it", fieldPlace(cfg, p, field, key), path))
			}
		}
		for _, s := range p.Discovery.All() {
			for _, f := range secretFiles(s.Options) {
				_, err := Secret{File: *f.path}.read()
				wrong(f.path, f.key, err)
				if err == nil {
					public(f.path, f.key, *f.path)
				}
			}
			switch o := s.Options.(type) {
			case *config.ExecSource:
				wrong(&o.Command[0], "command", privilege.MayRun(o.Command[0]))
				if o.Folder != "" {
					wrong(&o.Folder, "folder", privilege.MayEnter(o.Folder))
				}
			case *config.KubernetesSource:
				if o.Kubeconfig == "" {
					break
				}
				c, err := readKubeconfig(o.Kubeconfig, o.Context)
				if err != nil {
					break // Check has told of it
				}
				lacks, secrets := c.look()
				for _, err := range lacks {
					wrong(&o.Kubeconfig, "kubeconfig", fmt.Errorf("%s: %w", o.Kubeconfig, err))
				}
				if c.secret() {
					secrets = append(secrets, o.Kubeconfig)
				}
				for _, path := range secrets {
					public(&o.Kubeconfig, "kubeconfig", path)
				}
			}
		}
		if to := p.Discovery.SaveTo; to != "" {
			const writeAndSearch = 3 // W_OK|X_OK
			if err := syscall.Access(filepath.Dir(to), writeAndSearch); err != nil {
				wrong(&p.Discovery.SaveTo, "save_to", fmt.Errorf("directory %s: %w", filepath.Dir(to), err))
			}
		}
	}
	return errs, notes
}

func fieldPlace(cfg *config.Config, p *config.Pool, field *string, key string) string {
	if at := cfg.At(field); at != "" {
		return at
	}
	return placeOf(cfg, p) + "." + key
}

// secretFile is a field of a kind's options that names a file with a secret.
type secretFile struct {
	key  string
	path *string
}

// secretFiles returns those that are set.
func secretFiles(options any) (all []secretFile) {
	v := reflect.ValueOf(options).Elem()
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("toml")
		if path, ok := v.Field(i).Addr().Interface().(*string); ok && strings.HasSuffix(key, "_file") && *path != "" {
			all = append(all, secretFile{key, path})
		}
	}
	return all
}

// isPublic reports whether everybody on this host may read a file: it, and every folder on the way there, is open to others.
func isPublic(path string) bool {
	path, err := filepath.EvalSymlinks(path)
	for want := uint32(4); err == nil; want = 1 {
		var st syscall.Stat_t
		if err = syscall.Stat(path, &st); err != nil || st.Mode&want == 0 {
			return false
		}
		if path == "/" {
			return true
		}
		path = filepath.Dir(path)
	}
	return false
}
