// Command codes collects the codes of all problems from the source: every error of package
// errs with a kind and a literal code. It is run by "go generate ./api/problem".
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/accrue-billing/accrue/api/problem"
	"github.com/accrue-billing/accrue/internal/errs"
)

// kinds are the names that the source uses.
var kinds = map[string]errs.Kind{
	"Internal": errs.Internal, "Malformed": errs.Malformed, "Unauthenticated": errs.Unauthenticated,
	"PaymentDeclined": errs.PaymentDeclined, "Forbidden": errs.Forbidden, "NotFound": errs.NotFound,
	"Conflict": errs.Conflict, "PreconditionFailed": errs.PreconditionFailed,
	"PreconditionRequired": errs.PreconditionRequired, "TooLarge": errs.TooLarge,
	"UnsupportedMedia": errs.UnsupportedMedia, "Invalid": errs.Invalid, "RateLimited": errs.RateLimited,
	"Unavailable": errs.Unavailable,
}

// statuses are the two that no kind stands for.
var statuses = map[string]int{"method_not_allowed": 405, "not_acceptable": 406}

func main() {
	root := flag.String("root", ".", "root of the module")
	out := flag.String("out", "codes.json", "file to write")
	flag.Parse()
	if err := run(*root, *out); err != nil {
		fmt.Fprintln(os.Stderr, "codes:", err)
		os.Exit(1)
	}
}

func run(root, out string) error {
	found := map[string]problem.Code{}
	var unread []string
	// InvalidField makes errors of this code; it is not a literal anywhere else.
	add(found, errs.Invalid, "invalid_request", "A value in the request is not valid.")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if !collect(found, n) {
					unread = append(unread, files.Position(n.Pos()).String())
				}
			case *ast.CompositeLit:
				collectLiteral(found, n)
			}
			return true
		})
		return nil
	})
	if err != nil {
		return err
	}
	if len(unread) > 0 {
		return fmt.Errorf("these have no code that can be read, and would have no page: %s", strings.Join(unread, "; "))
	}
	list := make([]problem.Code, 0, len(found))
	for _, c := range found {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b problem.Code) int { return strings.Compare(a.Code, b.Code) })
	data, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(data, '\n'), 0o644) //nolint:gosec // a file of the source
}

// collect takes errs.New(errs.Kind, "code", "detail", …), and reports whether it could.
func collect(found map[string]problem.Code, call *ast.CallExpr) bool {
	if !selects(call.Fun, "errs", "New") || len(call.Args) < 3 {
		return true
	}
	kind, ok := call.Args[0].(*ast.SelectorExpr)
	if !ok {
		return false
	}
	code, ok1 := literal(call.Args[1])
	detail, ok2 := literal(call.Args[2])
	k, known := kinds[kind.Sel.Name]
	if known && ok1 && ok2 {
		add(found, k, code, detail)
	}
	return known && ok1 && ok2
}

// collectLiteral takes errs.Error{Kind: errs.Kind, Code: "code", Detail: "detail"}.
func collectLiteral(found map[string]problem.Code, lit *ast.CompositeLit) {
	if lit.Type == nil || !selects(lit.Type, "errs", "Error") {
		return
	}
	var kind, code, detail ast.Expr
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			switch name, _ := kv.Key.(*ast.Ident); {
			case name == nil:
			case name.Name == "Kind":
				kind = kv.Value
			case name.Name == "Code":
				code = kv.Value
			case name.Name == "Detail":
				detail = kv.Value
			}
		}
	}
	if kind != nil && code != nil && detail != nil {
		collect(found, &ast.CallExpr{Fun: &ast.SelectorExpr{X: ast.NewIdent("errs"), Sel: ast.NewIdent("New")}, Args: []ast.Expr{kind, code, detail}})
	}
}

func add(found map[string]problem.Code, k errs.Kind, code, detail string) {
	if had, twice := found[code]; twice && had.Detail <= detail {
		return // declared in several places: the choice must not depend on the order of files
	}
	status, ok := statuses[code]
	if !ok {
		status = problem.Status(k)
	}
	found[code] = problem.Code{Code: code, Title: problem.Title(code), Status: status, Detail: detail}
}

func selects(e ast.Expr, pkg, name string) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && x.Name == pkg
}

func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		l, ok1 := literal(e.X)
		r, ok2 := literal(e.Y)
		return l + r, ok1 && ok2 && e.Op == token.ADD
	}
	return "", false
}
