package openapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/tools/go/packages"

	"github.com/accrue-billing/accrue/docs"
)

const module = "github.com/accrue-billing/accrue/"

// source is the code that answers, with its types.
var source = sync.OnceValues(func() ([]*packages.Package, error) {
	all, err := packages.Load(&packages.Config{Mode: packages.LoadSyntax, Dir: "../.."}, "./internal/...", "./api/...")
	for _, p := range all {
		for _, e := range p.Errors {
			err = errors.Join(err, e)
		}
	}
	return all, err
})

// inspect shows every expression of the source, with where it stands.
func inspect(t *testing.T, see func(p *packages.Package, n ast.Node, where token.Position)) {
	t.Helper()
	all, err := source()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		for _, f := range p.Syntax {
			ast.Inspect(f, func(n ast.Node) bool {
				if n != nil {
					see(p, n, p.Fset.Position(n.Pos()))
				}
				return true
			})
		}
	}
}

func documented(t *testing.T) map[string]any {
	t.Helper()
	var doc any
	if err := json.Unmarshal(docs.OpenAPI, &doc); err != nil {
		t.Fatal(err)
	}
	return at(t, doc, "components", "schemas").(map[string]any)
}

// meant returns the type that a value has before it is made a plain text: string(u.Status) is one of the statuses.
func meant(p *packages.Package, e ast.Expr) types.Type {
	if call, ok := e.(*ast.CallExpr); ok && len(call.Args) == 1 && p.TypesInfo.Types[call.Fun].IsType() {
		if to, ok := p.TypesInfo.TypeOf(call.Fun).(*types.Basic); ok && to.Kind() == types.String {
			return p.TypesInfo.TypeOf(call.Args[0])
		}
	}
	return p.TypesInfo.TypeOf(e)
}

// open are the types of which the constants are some values among others.
var open = []string{module + "internal/plan.Code", module + "pkg/money.Currency", module + "internal/invariant.ID"}

// values returns the constants of a type of texts, but for the empty one, which stands for none.
func values(t types.Type) []string {
	n, ok := types.Unalias(t).(*types.Named)
	if b, basic := t.Underlying().(*types.Basic); !ok || !basic || b.Info()&types.IsString == 0 || n.Obj().Pkg() == nil || slices.Contains(open, n.String()) {
		return nil
	}
	var out []string
	scope := n.Obj().Pkg().Scope()
	for _, name := range scope.Names() {
		if c, ok := scope.Lookup(name).(*types.Const); ok && types.Identical(c.Type(), t) && constant.StringVal(c.Val()) != "" {
			out = append(out, constant.StringVal(c.Val()))
		}
	}
	slices.Sort(out)
	return out
}

// enum returns what a schema allows, but for null.
func enum(schema map[string]any) (out []string) {
	list, _ := schema["enum"].([]any)
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

// differs says how what a type is written as differs from its schema, and nothing where it does not.
func differs(schemas, schema map[string]any, t types.Type) string {
	if choices, ok := schema["anyOf"].([]any); ok {
		var why []string
		for _, one := range choices {
			w := differs(schemas, one.(map[string]any), t)
			if w == "" {
				return ""
			}
			why = append(why, w)
		}
		return strings.Join(why, ", and ")
	}
	name := strings.TrimPrefix(fmt.Sprint(schema["$ref"]), "#/components/schemas/")
	if ref, ok := schemas[name].(map[string]any); ok && schema["$ref"] != nil {
		if named, ok := t.(*types.Named); ok && strings.HasSuffix(named.String(), "/money.Amount") && name == "Money" {
			return "" // it writes itself
		}
		return differs(schemas, ref, t)
	}
	if p, ok := t.(*types.Pointer); ok {
		kind, _ := schema["type"].([]any)
		if !slices.Contains(kind, any("null")) {
			return "it may be null"
		}
		return differs(schemas, with(schema, "type", kind[0]), p.Elem())
	}
	want := func(kind, format string) string {
		if schema["type"] != kind || (format != "" && schema["format"] != format) {
			return fmt.Sprintf("it is a %s %s", kind, format)
		}
		return ""
	}
	switch name := types.TypeString(t, nil); {
	case name == "time.Time":
		return want("string", "date-time")
	case strings.HasSuffix(name, "/money.Decimal"):
		return want("string", "decimal")
	case strings.HasSuffix(name, "/money.Amount"):
		return "it is money"
	case writesItself(t):
		return want("string", "")
	}
	switch u := t.Underlying().(type) {
	case *types.Basic:
		switch {
		case u.Info()&types.IsInteger != 0:
			return want("integer", "")
		case u.Info()&types.IsBoolean != 0:
			return want("boolean", "")
		}
		if v := values(t); len(v) > 0 && !slices.Equal(v, enum(schema)) {
			return fmt.Sprintf("it is one of %q", v)
		}
		return want("string", "")
	case *types.Slice:
		items, _ := schema["items"].(map[string]any)
		if items == nil {
			return "it is a list"
		}
		return differs(schemas, items, u.Elem())
	case *types.Map:
		return want("object", "")
	case *types.Struct:
		properties, _ := schema["properties"].(map[string]any)
		written := map[string]bool{}
		for i := range u.NumFields() {
			tag := reflect.StructTag(u.Tag(i)).Get("json")
			member, _, _ := strings.Cut(tag, ",")
			p, ok := properties[member].(map[string]any)
			if !ok {
				return fmt.Sprintf("it has a member %q", member)
			}
			if why := differs(schemas, p, u.Field(i).Type()); why != "" {
				return member + ": " + why
			}
			written[member] = true
		}
		for member := range properties {
			if !written[member] {
				return fmt.Sprintf("it has no %q", member)
			}
		}
		return ""
	}
	return fmt.Sprintf("what %s is written as is not known here", t)
}

func with(schema map[string]any, key string, value any) map[string]any {
	out := maps.Clone(schema)
	out[key] = value
	return out
}

// writesItself reports whether a type makes its own text, as identifiers do.
func writesItself(t types.Type) bool {
	m, _, _ := types.LookupFieldOrMethod(t, true, nil, "MarshalText")
	_, ok := m.(*types.Func)
	return ok
}

// What an error is given to say is in the document, with its type and its values, and under no name that a problem has for
// something else: that would be dropped.
func TestFurtherMembers_AreWhatErrorsCarry(t *testing.T) {
	t.Parallel()
	schemas := documented(t)
	known := at(t, schemas, "Problem", "properties").(map[string]any)
	standard := []string{"type", "title", "status", "detail", "instance", "code", "errors"}
	carried, literal := map[string]bool{}, map[string][]string{}
	inspect(t, func(p *packages.Package, n ast.Node, where token.Position) {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 2 {
			return
		}
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || f.Sel.Name != "With" || !strings.HasSuffix(types.TypeString(p.TypesInfo.TypeOf(f.X), nil), "/errs.Error") {
			return
		}
		value := p.TypesInfo.Types[call.Args[0]].Value
		if value == nil {
			if types.TypeString(p.TypesInfo.TypeOf(call.Args[0]), nil) != "string" || !strings.Contains(where.Filename, "api/v1/answer.go") {
				t.Errorf("%s: under a name that is not known before", where)
			}
			return
		}
		member := constant.StringVal(value)
		schema, ok := known[member].(map[string]any)
		if !ok || slices.Contains(standard, member) {
			t.Errorf("%s: %q is not in the document, or means something else there", where, member)
			return
		}
		carried[member] = true
		if text := p.TypesInfo.Types[call.Args[1]].Value; text != nil && text.Kind() == constant.String {
			literal[member] = append(literal[member], constant.StringVal(text))
			return
		}
		if member == "upgrade_status" { // as of Upgrade, which is held below
			return
		}
		if why := differs(schemas, schema, meant(p, call.Args[1])); why != "" {
			t.Errorf("%s: %q is not as in the document: %s", where, member, why)
		}
	})
	for member, said := range literal {
		slices.Sort(said)
		if may := enum(known[member].(map[string]any)); len(may) > 0 && !slices.Equal(slices.Compact(said), may) {
			t.Errorf("%q may be %q in the document, and is %q", member, may, said)
		}
	}
	for _, byID := range []string{"upgrade", "top_up", "payment", "payment_method"} { // which of them is said where it is known
		carried[byID] = true
	}
	for member := range known {
		if !carried[member] && !slices.Contains(standard, member) {
			t.Errorf("no error carries %q", member)
		}
	}
}

// never are the states of payments in which these are not.
var never = map[string][]string{
	"Upgrade":     {"parked"},
	"Refund":      {"canceled", "parked", "requires_action"},
	"AdminRefund": {"canceled", "parked", "requires_action"},
}

// What a member of an answer may be, by its tag, are the constants that it is made of.
func TestEnums_AreTheConstants(t *testing.T) {
	t.Parallel()
	held := 0
	inspect(t, func(p *packages.Package, n ast.Node, where token.Position) {
		lit, ok := n.(*ast.CompositeLit)
		if !ok || p.PkgPath != module+"api/v1" || !strings.HasPrefix(types.TypeString(p.TypesInfo.TypeOf(lit), nil), p.PkgPath) {
			return
		}
		s, ok := p.TypesInfo.TypeOf(lit).Underlying().(*types.Struct)
		if !ok {
			return
		}
		for _, e := range lit.Elts {
			kv, ok := e.(*ast.KeyValueExpr)
			if !ok {
				continue
			}
			for i := range s.NumFields() {
				if s.Field(i).Name() != kv.Key.(*ast.Ident).Name {
					continue
				}
				tag := reflect.StructTag(s.Tag(i))
				made := values(meant(p, kv.Value))
				if len(made) == 0 || tag.Get("json") == "" {
					continue
				}
				if lacks := never[types.TypeString(p.TypesInfo.TypeOf(lit), types.RelativeTo(p.Types))]; lacks != nil {
					made = slices.DeleteFunc(made, func(v string) bool { return slices.Contains(lacks, v) })
				}
				may := strings.Split(tag.Get("enums"), ",")
				slices.Sort(may)
				held++
				if !slices.Equal(may, made) {
					t.Errorf("%s: %s may be %q in the document, and is one of %q", p.Fset.Position(kv.Pos()), kv.Key, may, made)
				}
			}
		}
	})
	if held < 20 {
		t.Errorf("only %d found: the test looks for them in another form than they have", held)
	}
}
