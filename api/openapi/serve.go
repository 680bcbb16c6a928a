package openapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
	echoswagger "github.com/swaggo/echo-swagger"

	"github.com/accrue-billing/accrue/docs"
)

// Mount serves the document at /openapi.json and /openapi.yaml and shows it at /swagger/.
func Mount(e *echo.Echo) {
	e.GET("/openapi.json", document("application/json", docs.OpenAPI))
	e.GET("/openapi.yaml", document("application/yaml", docs.OpenAPIYAML))

	toIndex := func(c echo.Context) error { return c.Redirect(http.StatusFound, "/swagger/index.html") }
	e.GET("/swagger", toIndex)
	e.GET("/swagger/", toIndex)
	ui := echoswagger.EchoWrapHandler(
		echoswagger.URL("/openapi.json"),
		echoswagger.DeepLinking(true),
		echoswagger.DocExpansion("list"),
		echoswagger.PersistAuthorization(false), // a credential is not left behind in a browser
	)
	e.GET("/swagger/*", func(c echo.Context) error {
		c.Request().RequestURI = c.Request().URL.Path // the page takes the query for part of a file's name
		c.Response().Header().Set("Cache-Control", "public, max-age=3600")
		if c.Param("*") == "index.html" {
			return index(c, ui)
		}
		w := c.Response().Writer
		found := &foundOnly{ResponseWriter: w}
		c.Response().Writer = found
		err := ui(c)
		c.Response().Writer = w
		if found.missing {
			c.Response().Committed = false
			return echo.ErrNotFound
		}
		return err
	})
}

// foundOnly holds an answer back that says, in words of its own, that there is no such file.
type foundOnly struct {
	http.ResponseWriter
	missing bool
}

func (f *foundOnly) WriteHeader(status int) {
	if f.missing = status == http.StatusNotFound; !f.missing {
		f.ResponseWriter.WriteHeader(status)
	}
}

func (f *foundOnly) Write(b []byte) (int, error) {
	if f.missing {
		return len(b), nil
	}
	return f.ResponseWriter.Write(b)
}

func document(media string, data []byte) echo.HandlerFunc {
	sum := sha256.Sum256(data)
	tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set("Cache-Control", "public, no-cache")
		h.Set("ETag", tag)
		// The document is public and harmless; tools on other pages may read it.
		h.Set(echo.HeaderAccessControlAllowOrigin, "*")
		if c.Request().Header.Get("If-None-Match") == tag {
			return c.NoContent(http.StatusNotModified)
		}
		return c.Blob(http.StatusOK, media, data)
	}
}

// index serves the page with a policy that allows its own inline script and no other.
func index(c echo.Context, ui echo.HandlerFunc) error {
	var page recorder
	inner := c.Echo().NewContext(c.Request(), &page)
	if err := ui(inner); err != nil {
		return err
	}
	policy := "default-src 'none'; connect-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; " +
		"frame-ancestors 'none'; script-src 'self'"
	for _, script := range inlineScripts(page.String()) {
		sum := sha256.Sum256([]byte(script))
		policy += " 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	c.Response().Header().Set("Content-Security-Policy", policy)
	return c.HTMLBlob(http.StatusOK, page.Bytes())
}

func inlineScripts(html string) (scripts []string) {
	for {
		_, rest, ok := strings.Cut(html, "<script>")
		if !ok {
			return scripts
		}
		script, after, ok := strings.Cut(rest, "</script>")
		if !ok {
			return scripts
		}
		scripts = append(scripts, script)
		html = after
	}
}

// recorder keeps an answer that is not sent yet.
type recorder struct {
	bytes.Buffer
	header http.Header
}

func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

func (r *recorder) WriteHeader(int) {}
