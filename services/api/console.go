package api

import (
	"errors"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// headers are on every answer. Scripts come from this server alone; xterm.js
// sets styles by itself, hence 'unsafe-inline' for those. No HSTS: with a
// certificate that no authority signed, it would take from people the button
// that lets them in.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "+
			"connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		if strings.HasPrefix(r.URL.Path, "/api/") {
			h.Set("Cache-Control", "no-store")
		}
		next.ServeHTTP(w, r)
	})
}

// console serves the console's files. A path that is none of them is one of
// the console's own addresses, and gets its page.
func console(files fs.FS) http.Handler {
	if files == nil {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(http.StatusNotFound)
			write(w, []byte("Rackseed runs, without the console's files. Start it with --console FOLDER, or use the command line: rackseed help\n"))
		})
	}
	server := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
		info, err := fs.Stat(files, name)
		switch {
		case name == "", errors.Is(err, fs.ErrNotExist) && path.Ext(name) == "", err == nil && info.IsDir():
			w.Header().Set("Cache-Control", "no-cache")
			r = r.Clone(r.Context())
			r.URL.Path = "/"
		case strings.HasPrefix(name, "assets/"):
			// Their names carry the hash of their content.
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		default:
			w.Header().Set("Cache-Control", "no-cache")
		}
		server.ServeHTTP(w, r)
	})
}
