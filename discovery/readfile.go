package discovery

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

const maxMaterial = 4 << 20 // bytes of certificates or a key

// openFile opens a regular file and waits for nobody: a pipe would wait for its writer.
func openFile(path string) (*os.File, fs.FileInfo, error) {
	h, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := h.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: got a %s; want a regular file", path, kindOfFile(info.Mode()))
	}
	if err != nil {
		h.Close()
		return nil, nil, err
	}
	return h, info, nil
}

// readFile reads one whole. Its errors name it.
func readFile(path string, most int64) ([]byte, error) {
	h, _, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	b, err := readLimited(h, most)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// readPair reads a certificate and its key, which may be in one file.
func readPair(cert, key string) (tls.Certificate, error) {
	certs, err := readFile(cert, maxMaterial)
	if err != nil {
		return tls.Certificate{}, err
	}
	private, err := readFile(key, maxMaterial)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certs, private)
}

func kindOfFile(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "folder"
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	}
	return "device"
}
