package plan

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Bounds on a catalogue's text. A real one is a hundredth of this.
const (
	MaxDocument = 256 << 10
	maxDepth    = 32
	maxFaults   = 50
	maxItems    = 500
	maxText     = 500
)

// Errors of reading.
var (
	ErrUnreadable = errs.New(errs.Malformed, "catalogue_unreadable", "The document is not readable YAML or JSON.")
	ErrTooLarge   = errs.New(errs.TooLarge, "catalogue_too_large", "The document is larger or more deeply nested than any catalogue.")
	ErrInvalid    = errs.New(errs.Invalid, "catalogue_invalid", "The document breaks rules of a catalogue; each is named.")
)

// reader walks a document and notes every fault at its place. It goes by the text of a number, never
// by a float, so that 0.027 is 0.027.
type reader struct{ faults []errs.Field }

func (r *reader) fault(pointer, code, detail string) {
	if len(r.faults) < maxFaults {
		r.faults = append(r.faults, errs.Field{Pointer: pointer, Code: code, Detail: detail})
	}
}

// err returns the faults as one error, or nil.
func (r *reader) err() error {
	if len(r.faults) == 0 {
		return nil
	}
	e := *ErrInvalid
	e.Fields = r.faults
	return &e
}

// parseDocument returns the root of the one document in b, YAML or JSON.
func parseDocument(b []byte) (root ast.Node, err error) {
	b = bytes.TrimPrefix(b, []byte("\ufeff")) // a byte order mark, which some editors write
	if len(b) > MaxDocument || tooDeep(b) {
		return nil, ErrTooLarge
	}
	if !utf8.Valid(b) {
		return nil, ErrUnreadable.Details("The document is not UTF-8.")
	}
	// The YAML parser has panicked on hostile text before; an operator's upload must not end a server.
	defer func() {
		if p := recover(); p != nil {
			root, err = nil, ErrUnreadable
		}
	}()
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return nil, ErrUnreadable.Because(err).Details("The document is not readable YAML or JSON: %s.", firstLine(err.Error()))
	}
	for _, doc := range file.Docs {
		if doc == nil || doc.Body == nil {
			continue
		}
		if root != nil {
			return nil, ErrUnreadable.Details("There is more than one document in the text.")
		}
		root = doc.Body
	}
	if root == nil {
		return nil, ErrUnreadable.Details("The document is empty.")
	}
	return root, nil
}

// tooDeep reports nesting that no catalogue has, since the parser's time grows with its square. It
// counts brackets and dashes wherever they are, which is harmless: text has few.
func tooDeep(b []byte) bool {
	depth, dashes := 0, 0
	for i, c := range b {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		case '-', '?':
			if i+1 < len(b) && (b[i+1] == ' ' || b[i+1] == '\t') {
				dashes++
			}
		case '\n', '\r':
			dashes = 0
		}
		if depth > maxDepth || dashes > maxDepth {
			return true
		}
	}
	return false
}

// Line returns the line of a document on which the value stands that a fault's pointer leads to, or, where that is
// missing, what it is missing from. It is 0 where the document cannot be read.
func Line(document []byte, pointer string) int {
	node, err := parseDocument(document)
	if err != nil {
		return 0
	}
	line := node.GetToken().Position.Line
	for _, step := range strings.Split(pointer, "/")[1:] {
		var pairs []*ast.MappingValueNode
		switch n := node.(type) {
		case *ast.MappingNode:
			pairs = n.Values
		case *ast.MappingValueNode:
			pairs = []*ast.MappingValueNode{n}
		case *ast.SequenceNode:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(n.Values) {
				return line
			}
			node = n.Values[i]
			line = node.GetToken().Position.Line
			continue
		}
		i := slices.IndexFunc(pairs, func(p *ast.MappingValueNode) bool {
			key, ok := scalarText(p.Key)
			return ok && at("", key) == "/"+step
		})
		if i < 0 {
			return line
		}
		node, line = pairs[i].Value, pairs[i].Key.GetToken().Position.Line
	}
	return line
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// object is a mapping that is being read. Each accessor notes its own faults.
type object struct {
	r    *reader
	ptr  string
	vals map[string]ast.Node
}

// item is a node and its place.
type item struct {
	node ast.Node
	ptr  string
}

func at(ptr, key string) string {
	var b strings.Builder
	b.WriteString(ptr)
	b.WriteByte('/')
	for _, c := range []byte(key) {
		switch {
		case c == '~':
			b.WriteString("~0")
		case c == '/':
			b.WriteString("~1")
		case c > ' ' && c < 0x7f && !strings.ContainsRune(`"%<>\^`+"`{|}#", rune(c)):
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte("0123456789ABCDEF"[c>>4])
			b.WriteByte("0123456789ABCDEF"[c&15])
		}
	}
	return b.String()
}

// entries returns the keys and values of a mapping in order.
func (r *reader) entries(it item) ([]string, []item, bool) {
	var pairs []*ast.MappingValueNode
	switch n := it.node.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		r.fault(it.ptr, "type", "Want a mapping of names to values.")
		return nil, nil, false
	}
	if len(pairs) > maxItems {
		r.fault(it.ptr, "too_many", "There are more entries than a catalogue can have.")
		return nil, nil, false
	}
	keys := make([]string, 0, len(pairs))
	vals := make([]item, 0, len(pairs))
	seen := make(map[string]bool, len(pairs))
	for _, p := range pairs {
		key, ok := scalarText(p.Key)
		if !ok {
			r.fault(it.ptr, "key", "A name must be plain text: no anchors, aliases, merges or tags.")
			return nil, nil, false
		}
		if seen[key] {
			r.fault(at(it.ptr, key), "duplicate", "The name appears twice.")
			continue
		}
		seen[key] = true
		keys = append(keys, key)
		vals = append(vals, item{p.Value, at(it.ptr, key)})
	}
	return keys, vals, true
}

// object reads a mapping that has only the known names.
func (r *reader) object(it item, known ...string) (object, bool) {
	o := object{r: r, ptr: it.ptr, vals: map[string]ast.Node{}}
	keys, vals, ok := r.entries(it)
	if !ok {
		return o, false
	}
	for i, k := range keys {
		if !slices.Contains(known, k) {
			r.fault(vals[i].ptr, "unknown_field", "There is no such field; known are "+strings.Join(known, ", ")+".")
			continue
		}
		o.vals[k] = vals[i].node
	}
	return o, true
}

func (o object) has(key string) bool { return o.vals[key] != nil }

func (o object) at(key string) item { return item{o.vals[key], at(o.ptr, key)} }

// require notes that a field is missing. A text without anything in it is none.
func (o object) require(key string) bool {
	if s, text := scalarText(o.vals[key]); o.has(key) && (!text || s != "") {
		return true
	}
	o.r.fault(at(o.ptr, key), "required", "The field is missing.")
	return false
}

// list returns the items of a sequence; a missing one is empty.
func (o object) list(key string) []item {
	if !o.has(key) {
		return nil
	}
	it := o.at(key)
	n, ok := it.node.(*ast.SequenceNode)
	if !ok {
		o.r.fault(it.ptr, "type", "Want a list.")
		return nil
	}
	if len(n.Values) > maxItems {
		o.r.fault(it.ptr, "too_many", "There are more items than a catalogue can have.")
		return nil
	}
	items := make([]item, len(n.Values))
	for i, v := range n.Values {
		items[i] = item{v, at(it.ptr, strconv.Itoa(i))}
	}
	return items
}

// text reads a string of at most maxText characters. Numbers are taken as they are written.
func (o object) text(key string) string {
	if !o.has(key) {
		return ""
	}
	return o.r.text(o.at(key))
}

func (r *reader) text(it item) string {
	s, ok := scalarText(it.node)
	switch {
	case !ok:
		r.fault(it.ptr, "type", "Want text.")
	case utf8.RuneCountInString(s) > maxText:
		r.fault(it.ptr, "too_long", "The text is longer than "+strconv.Itoa(maxText)+" characters.")
	case strings.ContainsFunc(s, func(c rune) bool { return unicode.Is(unicode.C, c) || c == unicode.ReplacementChar }):
		r.fault(it.ptr, "control_character", "The text holds control or formatting characters.")
	default:
		return s
	}
	return ""
}

// code reads an identifier: lower case, digits and underscores.
func (o object) code(key string) string {
	s := o.text(key)
	if s != "" && !isCode(s) {
		o.r.fault(at(o.ptr, key), "code", "Want a lower-case letter, then at most 62 letters, digits or underscores.")
		return ""
	}
	return s
}

func isCode(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

func (o object) boolean(key string) bool {
	if !o.has(key) {
		return false
	}
	n, ok := o.vals[key].(*ast.BoolNode)
	if !ok {
		o.r.fault(at(o.ptr, key), "type", "Want true or false.")
		return false
	}
	return n.Value
}

// integer reads a whole number from 1 to most; a missing one is the default.
func (o object) integer(key string, def, most int64) int64 {
	if !o.has(key) {
		return def
	}
	return o.r.integer(o.at(key), most)
}

func (r *reader) integer(it item, most int64) int64 {
	s, ok := scalarText(it.node)
	n, err := strconv.ParseInt(s, 10, 64)
	if !ok || err != nil || n < 1 || n > most || strconv.FormatInt(n, 10) != s {
		r.fault(it.ptr, "integer", "Want a whole number from 1 to "+strconv.FormatInt(most, 10)+".")
		return 1
	}
	return n
}

// decimal reads a number that is not negative; a missing one is 0.
func (o object) decimal(key string) money.Decimal {
	if !o.has(key) {
		return money.Decimal{}
	}
	return o.r.decimal(o.at(key))
}

func (r *reader) decimal(it item) money.Decimal {
	s, ok := scalarText(it.node)
	if !ok {
		r.fault(it.ptr, "type", "Want a decimal number.")
		return money.Decimal{}
	}
	d, err := money.ParseDecimal(s)
	switch {
	case err != nil:
		r.fault(it.ptr, "decimal", "Want a decimal number with at most 15 digits before and 9 after the point, and no exponent.")
	case d.Sign() < 0:
		r.fault(it.ptr, "negative", "The number must not be negative.")
	default:
		return d
	}
	return money.Decimal{}
}

// scalarText returns a scalar as it is written. Anchors, aliases, tags and null are no scalars here.
func scalarText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimRight(n.Value.Value, "\n"), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	return "", false
}
