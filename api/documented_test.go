package api_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/api"
)

// example is a request as the documentation prints it, perhaps over two lines.
var example = regexp.MustCompile(`(?m)^\$ curl .*\$API(/v1/[^ ?\n]*)([^\n]*(?:\\\n[^\n]*)?)`)

// Every request that the documentation prints is one that the API has.
func TestDocumentedRequestsAreRoutes(t *testing.T) {
	t.Parallel()

	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	routes := api.Routes(api.Deps{})
	found := 0
	for _, file := range append(files, "../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range example.FindAllStringSubmatch(string(text), -1) {
			found++
			method := "GET"
			if _, after, ok := strings.Cut(m[2], "-X "); ok {
				method, _, _ = strings.Cut(after, " ")
			} else if strings.Contains(m[2], " -d ") || strings.Contains(m[2], " --data") {
				method = "POST"
			}
			known := false
			for _, r := range routes {
				known = known || r.Method == method && matches(r.Path, m[1])
			}
			if !known {
				t.Errorf("%s: there is no %s %s", file, method, m[1])
			}
		}
	}
	if found < 15 {
		t.Errorf("only %d examples were found", found)
	}
}

// matches reports whether a path may be one of a route's.
func matches(route, path string) bool {
	of, is := strings.Split(route, "/"), strings.Split(path, "/")
	if len(of) != len(is) {
		return false
	}
	for i := range of {
		if !strings.HasPrefix(of[i], "{") && of[i] != is[i] {
			return false
		}
	}
	return true
}
