// Command generate writes the OpenAPI document from the annotations of the handlers and the table of
// routes. It is run by "go generate ./api/openapi" and its output does not depend on anything but the
// source.
package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/swaggo/swag/v2/gen"

	"github.com/accrue-billing/accrue/api"
	"github.com/accrue-billing/accrue/api/openapi"
)

func main() {
	root := flag.String("root", ".", "root of the module")
	raw := flag.String("raw", "", "also write what swag made, for the curious")
	flag.Parse()
	log.SetOutput(io.Discard) // swag talks
	if err := run(*root, *raw); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

func run(root, rawFile string) error {
	if err := os.Chdir(root); err != nil { // swag wants relative folders
		return err
	}
	tmp, err := os.MkdirTemp("", "openapi")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	err = gen.New().Build(&gen.Config{
		SearchDir:           "api",
		MainAPIFile:         "doc.go",
		PropNamingStrategy:  "snakecase",
		OutputDir:           tmp,
		OutputTypes:         []string{"json"},
		ParseDependency:     1, // types of other packages, no operations
		GenerateOpenAPI3Doc: true,
		Strict:              true,
		Debugger:            log.New(io.Discard, "", 0),
	})
	if err != nil {
		return fmt.Errorf("swag: %w", err)
	}
	raw, err := os.ReadFile(filepath.Join(tmp, "swagger.json")) //nolint:gosec // in a folder of our own
	if err != nil {
		return err
	}
	if rawFile != "" {
		if err := os.WriteFile(rawFile, raw, 0o600); err != nil { //nolint:gosec // where its user asks for it
			return err
		}
	}
	words, err := descriptions("api")
	if err != nil {
		return err
	}
	all, err := examples("api/v1/testdata")
	if err != nil {
		return err
	}
	doc, err := openapi.Finish(raw, api.Routes(api.Deps{}), words, all)
	if err != nil {
		return err
	}
	asYAML, err := yaml.JSONToYAML(doc)
	if err != nil {
		return err
	}
	if err := os.WriteFile("docs/openapi.json", doc, 0o644); err != nil { //nolint:gosec // a file of the source
		return err
	}
	return os.WriteFile("docs/openapi.yaml", asYAML, 0o644) //nolint:gosec // a file of the source
}

// descriptions returns the comments of the wire types by the name that "//@name" gives them. Swag
// leaves them out.
func descriptions(folder string) (map[string]string, error) {
	words := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.TYPE {
				continue
			}
			for _, spec := range gen.Specs {
				t, ok := spec.(*ast.TypeSpec)
				if !ok || t.Comment == nil {
					continue
				}
				name, named := strings.CutPrefix(t.Comment.List[0].Text, "//@name ")
				doc := gen.Doc
				if t.Doc != nil {
					doc = t.Doc
				}
				if named && doc != nil {
					words[strings.TrimSpace(name)] = strings.Join(strings.Fields(doc.Text()), " ")
				}
			}
		}
		return nil
	})
	return words, err
}
