package problem

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"net/http"
	"strings"
	"sync"

	"github.com/labstack/echo/v4"
)

//go:generate go run ./internal/codes -root ../.. -out codes.json

//go:embed codes.json
var codesFile []byte

// Code is a problem that this service can answer with.
type Code struct {
	Code   string `json:"code"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"` // the usual words; an occurrence may have others
}

// Codes returns every code by its slug. They are collected from the declarations in the source by
// "go generate", so the list cannot lack one.
var Codes = sync.OnceValue(func() map[string]Code {
	var list []Code
	if err := json.Unmarshal(codesFile, &list); err != nil {
		panic(err) // the file is generated and embedded; a test reads it too
	}
	bySlug := make(map[string]Code, len(list))
	for _, c := range list {
		bySlug[Slug(c.Code)] = c
	}
	return bySlug
})

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{{.Title}}</title></head>
<body>
<h1>{{.Title}}</h1>
<p>{{.Detail}}</p>
<dl><dt>code</dt><dd><code>{{.Code}}</code></dd><dt>status</dt><dd>{{.Status}}</dd></dl>
</body>
</html>
`))

// Page serves what a problem's type leads to, as HTML or, for a program, as JSON.
func Page(c echo.Context) error {
	code, ok := Codes()[c.Param("slug")]
	if !ok {
		return ErrNoRoute
	}
	h := c.Response().Header()
	h.Set("Cache-Control", "public, max-age=3600")
	h.Add(echo.HeaderVary, echo.HeaderAccept)
	if !strings.Contains(c.Request().Header.Get(echo.HeaderAccept), "text/html") {
		return c.JSON(http.StatusOK, code)
	}
	var b bytes.Buffer
	if err := page.Execute(&b, code); err != nil {
		return err
	}
	return c.HTMLBlob(http.StatusOK, b.Bytes())
}
