package admin

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"mime"
	"path"
	"strings"
	"sync"

	"github.com/fasthttp/router"
	"github.com/valyala/fasthttp"
)

// The web page, as `make ui` built it of admin/ui. It needs no credentials: the data does (decision 0061).
//
//go:embed all:ui/dist
var pageFiles embed.FS

// pagePolicy lets the page load what came with it, talk to where it came from, and nothing else. There is no inline script
// and no inline style to allow.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// The names of assets have a hash of what is in them, so browsers may keep them. The page itself has not: they ask each time.
const (
	cacheAssets = "public, max-age=31536000, immutable"
	cachePage   = "no-cache"
)

// pageFile is one file of the page.
type pageFile struct {
	kind, etag string
	body       []byte
	gzipped    func() []byte // compressed the first time that somebody takes it so; nil: not worth it
}

// readPage returns the files of the page by their path: index.html, assets/….
func readPage() map[string]*pageFile {
	files := map[string]*pageFile{}
	root, err := fs.Sub(pageFiles, "ui/dist")
	if err == nil {
		err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			body, err := fs.ReadFile(root, name)
			files[name] = newPageFile(name, body)
			return err
		})
	}
	if err != nil {
		panic("admin: the embedded page cannot be read: " + err.Error()) // of our own binary
	}
	return files
}

// pageKinds are the types of what is in the page. The host's own table of types may differ from machine to machine.
var pageKinds = map[string]string{
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".svg":  "image/svg+xml",
}

func newPageFile(name string, body []byte) *pageFile {
	f := &pageFile{kind: pageKinds[path.Ext(name)], body: body}
	if f.kind == "" {
		f.kind = mime.TypeByExtension(path.Ext(name))
	}
	sum := sha256.Sum256(body)
	f.etag = `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	if len(body) > 512 {
		f.gzipped = sync.OnceValue(func() []byte { return gzipOf(body) })
	}
	return f
}

func gzipOf(body []byte) []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // fails for unknown levels only
	_, _ = w.Write(body)                                  // into memory
	_ = w.Close()
	return b.Bytes()
}

// pageRoutes adds the page to r. At / browsers get it, others the list of calls.
func (s *Server) pageRoutes(r *router.Router) {
	files := readPage()
	for _, method := range []string{fasthttp.MethodGet, fasthttp.MethodHead} {
		r.Handle(method, "/", func(c *fasthttp.RequestCtx) {
			c.Response.Header.Set("Vary", "Accept, Accept-Encoding")
			if page := files["index.html"]; page != nil && wantsHTML(c) {
				c.Response.Header.Set("Content-Security-Policy", pagePolicy)
				page.serve(c, cachePage)
				return
			}
			s.index(c)
		})
		for name, f := range files {
			if strings.HasPrefix(name, "assets/") {
				r.Handle(method, "/"+name, func(c *fasthttp.RequestCtx) {
					c.Response.Header.Set("Vary", "Accept-Encoding")
					c.Response.Header.Set("Content-Security-Policy", pagePolicy)
					f.serve(c, cacheAssets)
				})
			}
		}
	}
}

func (f *pageFile) serve(c *fasthttp.RequestCtx, cache string) {
	h := &c.Response.Header
	h.Set("Cache-Control", cache)
	h.Set("ETag", f.etag)
	if strings.Contains(string(c.Request.Header.Peek("If-None-Match")), f.etag) {
		c.SetStatusCode(fasthttp.StatusNotModified)
		return
	}
	h.SetContentType(f.kind)
	if f.gzipped != nil && c.Request.Header.HasAcceptEncoding("gzip") {
		h.Set("Content-Encoding", "gzip")
		c.SetBody(f.gzipped())
		return
	}
	c.SetBody(f.body)
}

// wantsHTML reports whether a browser asks: curl and programs do not name text/html.
func wantsHTML(c *fasthttp.RequestCtx) bool {
	return bytes.Contains(c.Request.Header.Peek("Accept"), []byte("text/html"))
}
