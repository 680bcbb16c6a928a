package importer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/accrue-billing/accrue/internal/spreadsheet"
)

// bom is the mark that spreadsheets and editors on Windows put before a text in UTF-8.
const bom = "\ufeff"

// maxRow bounds one row in bytes.
const maxRow = 1 << 20

// maxShown bounds what is shown of a row that is longer than that.
const maxShown = 1 << 10

// maxDepth bounds how deep an event's members are nested: none of what an event may have comes near it. Near the 10,000
// levels that readers of JSON take, a row is read and the request that holds it is not.
const maxDepth = 32

// Mapping says which column is which member of an event: "call_id": "id", "team":
// "dimensions.project". A column that is named as a member maps to it by itself; any other column is
// left out. Set gives members that every row has: "meter": "voice".
type Mapping struct {
	Columns map[string]string
	Set     map[string]string
	Layout  string // of times, as Go writes one; empty: RFC 3339, "2006-01-02 15:04:05" or seconds since 1970
}

// members are what an event has, besides dimensions.
var members = []string{"id", "source", "meter", "quantity", "value", "timestamp", "subject"}

const dimension = "dimensions."

// Check returns what is wrong with the mapping.
func (m Mapping) Check() error {
	for _, targets := range []map[string]string{m.Columns, reverse(m.Set)} {
		for _, to := range targets {
			if !slices.Contains(members, to) && (!strings.HasPrefix(to, dimension) || to == dimension) {
				return fmt.Errorf("%q is not a member of an event: it has %s and %sNAME", to, strings.Join(members, ", "), dimension)
			}
		}
	}
	return nil
}

func reverse(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k := range m {
		out[k] = k
	}
	return out
}

// target returns the member that a column maps to; empty for none.
func (m Mapping) target(column string) string {
	if to, ok := m.Columns[column]; ok {
		return to
	}
	if slices.Contains(members, column) || strings.HasPrefix(column, dimension) {
		return column
	}
	return ""
}

// row is one row of the file.
type row struct {
	number int64 // from 1, without the head of a CSV file
	event  json.RawMessage
	fault  string // why it cannot be an event; empty if it can
	raw    string // as it stands in the file, if it cannot
}

func (r row) content() string {
	if r.fault != "" {
		return r.raw
	}
	return string(r.event)
}

// source reads rows.
type source struct {
	file    *os.File
	read    func() (fields map[string]any, raw string, err error) // err: io.EOF, a rowError, or the end of the import
	mapping Mapping
	number  int64
	sum     hash.Hash // over the rows so far, as they stand in the file
}

// rowError is what is wrong with one row only.
type rowError struct{ error }

// openSource opens a .csv, .ndjson or .jsonl file, compressed (.gz) or not.
func openSource(path string, m Mapping, p Progress) (*source, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	s := &source{file: f, mapping: m, sum: sha256.New()}
	if err := s.open(path, &counted{f, p, 0}); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return s, nil
}

func (s *source) open(path string, in io.Reader) error {
	name := strings.ToLower(path)
	if strings.HasSuffix(name, ".gz") {
		z, err := gzip.NewReader(bufio.NewReaderSize(in, 256<<10))
		if err != nil {
			return err
		}
		in, name = z, strings.TrimSuffix(name, ".gz")
	}
	text := bufio.NewReaderSize(in, 256<<10)
	if mark, _ := text.Peek(len(bom)); string(mark) == bom { // what cannot be read is told by the first row
		_, _ = text.Discard(len(bom))
	}
	switch {
	case strings.HasSuffix(name, ".csv"):
		return s.openCSV(text)
	case strings.HasSuffix(name, ".ndjson"), strings.HasSuffix(name, ".jsonl"):
		s.openNDJSON(text)
		return nil
	default:
		return errors.New("the name must end in .csv, .ndjson or .jsonl, with or without .gz")
	}
}

func (s *source) Close() error { return s.file.Close() }

func (s *source) openCSV(in io.Reader) error {
	text := &bounded{Reader: in}
	r := csv.NewReader(text)
	r.ReuseRecord = true
	head, err := r.Read()
	if errors.Is(err, io.EOF) {
		return errors.New("the file is empty: its first row names the columns")
	}
	if err != nil {
		return fmt.Errorf("head: %w", err)
	}
	text.cut(r.InputOffset())
	head = slices.Clone(head)
	if err := s.checkColumns(head); err != nil {
		return err
	}
	s.read = func() (map[string]any, string, error) {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil, "", err
		}
		raw := text.cut(r.InputOffset())
		if parse, ok := errors.AsType[*csv.ParseError](err); ok {
			return nil, raw, rowError{parse}
		}
		if err != nil {
			return nil, "", err
		}
		fields := make(map[string]any, len(record))
		for i, v := range record {
			if v != "" {
				fields[head[i]] = spreadsheet.Text(v)
			}
		}
		return fields, raw, nil
	}
	return nil
}

// checkColumns refuses a mapping of a column that is not there, and a file in which no column is one.
func (s *source) checkColumns(head []string) error {
	for _, column := range slices.Sorted(maps.Keys(s.mapping.Columns)) {
		if !slices.Contains(head, column) {
			return fmt.Errorf("there is no column %q; there are %s", column, strings.Join(head, ", "))
		}
	}
	seen := map[string]string{}
	for _, column := range head {
		to := s.mapping.target(column)
		if to == "" {
			continue
		}
		if other, twice := seen[to]; twice {
			return fmt.Errorf("columns %q and %q are both %s", other, column, to)
		}
		seen[to] = column
	}
	if _, ok := seen["id"]; !ok {
		return fmt.Errorf("no column is the id; map one with --map COLUMN=id; there are %s", strings.Join(head, ", "))
	}
	return nil
}

func (s *source) openNDJSON(in *bufio.Reader) {
	var line []byte
	s.read = func() (map[string]any, string, error) {
		for {
			var long bool
			var err error
			if line, long, err = readLine(in, line[:0]); err != nil {
				return nil, "", err
			}
			if long {
				return nil, string(line[:maxShown]) + "…", rowError{fmt.Errorf("longer than %d bytes", maxRow)}
			}
			line := bytes.TrimSpace(line)
			if len(line) == 0 {
				continue
			}
			// Of a member that is there twice, nobody can say which was meant: encoding/json takes the last.
			if v := jsontext.Value(line); !v.IsValid() {
				return nil, string(line), rowError{errors.New("not a JSON object, or one with a member that is there twice")}
			}
			dec := json.NewDecoder(bytes.NewReader(line))
			dec.UseNumber() // a quantity stays the digits that it is
			var fields map[string]any
			if err := dec.Decode(&fields); err != nil {
				return nil, string(line), rowError{err}
			}
			if d, ok := fields["dimensions"]; ok && d != nil && s.mapping.target("dimensions") == "" {
				if _, nested := d.(map[string]any); !nested { // left out it would be counted without them
					return nil, string(line), rowError{errors.New("dimensions are no object")}
				}
			}
			return fields, string(line), nil
		}
	}
}

// readLine reads a line into a buffer, and of a long one no more than a row may have. It returns io.EOF behind the last.
func readLine(in *bufio.Reader, line []byte) (_ []byte, long bool, err error) {
	for {
		part, err := in.ReadSlice('\n')
		if left := maxRow - len(line); len(part) > left {
			part, long = part[:left], true
		}
		line = append(line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, long, nil
		default:
			return line, long, err
		}
	}
}

// take reads a row and counts it.
func (s *source) take() (fields map[string]any, raw string, err error) {
	fields, raw, err = s.read()
	if fault := (rowError{}); err == nil || errors.As(err, &fault) {
		s.number++
		_, _ = io.WriteString(s.sum, raw+"\n") // a hash takes everything
	}
	return fields, raw, err
}

// passed returns what tells the rows so far from all others.
func (s *source) passed() string { return hex.EncodeToString(s.sum.Sum(nil)) }

// skip passes over rows that an earlier run has settled, if they are still the same.
func (s *source) skip(settled checkpoint) error {
	for s.number < settled.Counts.Rows {
		_, _, err := s.take()
		if errors.Is(err, io.EOF) {
			return ErrOtherFile
		}
		if fault := (rowError{}); err != nil && !errors.As(err, &fault) {
			return err
		}
	}
	if s.number > 0 && s.passed() != settled.Sum {
		return ErrOtherFile
	}
	return nil
}

// next returns the next row, or io.EOF.
func (s *source) next() (row, error) {
	fields, raw, err := s.take()
	if fault := (rowError{}); errors.As(err, &fault) {
		return row{number: s.number, fault: fault.Error(), raw: raw}, nil
	}
	switch {
	case errors.Is(err, io.EOF):
		return row{}, err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return row{}, fmt.Errorf("row %d: the compressed file ends early: %w", s.number+1, err)
	case err != nil:
		return row{}, fmt.Errorf("row %d: %w", s.number+1, err)
	}
	event, err := s.mapping.event(fields)
	if err != nil {
		return row{number: s.number, fault: err.Error(), raw: raw}, nil //nolint:nilerr // the row's fault, not the import's
	}
	return row{number: s.number, event: event}, nil
}

// event makes an event of a row's fields.
func (m Mapping) event(fields map[string]any) (json.RawMessage, error) {
	out := make(map[string]any, len(fields)+len(m.Set))
	dims := map[string]any{}
	place := func(to string) (map[string]any, string) {
		if name, ok := strings.CutPrefix(to, dimension); ok {
			return dims, name
		}
		return out, to
	}
	var twice string
	put := func(to string, v any) {
		in, name := place(to)
		if _, there := in[name]; there {
			twice = to
		}
		in[name] = v
	}
	for column, v := range fields {
		if nested, ok := v.(map[string]any); ok && column == "dimensions" {
			for name, v := range nested {
				put(dimension+name, v)
			}
			continue
		}
		if to := m.target(column); to != "" {
			put(to, v)
		}
	}
	if twice != "" { // fields come in any order: which of the two it was would change from one import to the next
		return nil, fmt.Errorf("more than one member is the %s", twice)
	}
	for to, v := range m.Set {
		in, name := place(to)
		if _, there := in[name]; !there {
			in[name] = v
		}
	}
	if len(dims) > 0 {
		out["dimensions"] = dims
	}
	if t, ok := out["timestamp"]; ok {
		at, err := m.time(fmt.Sprint(t))
		if err != nil {
			return nil, err
		}
		out["timestamp"] = at
	}
	if deeper(out, maxDepth) {
		return nil, fmt.Errorf("nested more than %d levels deep", maxDepth)
	}
	return json.Marshal(out)
}

// deeper reports whether a value is nested more than so many levels deep.
func deeper(v any, levels int) bool {
	under := func(v any) bool { return deeper(v, levels-1) }
	switch v := v.(type) {
	case map[string]any:
		return levels == 0 || slices.ContainsFunc(slices.Collect(maps.Values(v)), under)
	case []any:
		return levels == 0 || slices.ContainsFunc(v, under)
	}
	return false
}

func (m Mapping) time(s string) (string, error) {
	if m.Layout != "" {
		t, err := time.Parse(m.Layout, s)
		if err != nil {
			return "", fmt.Errorf("%q is not a time of the layout %q", s, m.Layout)
		}
		return t.UTC().Format(time.RFC3339Nano), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.UTC().Format(time.RFC3339Nano), nil
	}
	if t, err := time.Parse(time.DateTime, s); err == nil {
		return t.Format(time.RFC3339Nano), nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > 0 && n < 1<<40 {
		return time.Unix(n, 0).UTC().Format(time.RFC3339Nano), nil
	}
	return "", fmt.Errorf("%q is not a time; say how it is written with --time-layout", s)
}

// counted tells the progress how much of the file was read.
type counted struct {
	io.Reader
	progress Progress
	n        int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += int64(n)
	if c.progress != nil {
		c.progress.Read(c.n)
	}
	return n, err
}

// bounded keeps what was read of a row, so that it can be shown as it stands in the file, and ends the reading of one
// that does not end: a quotation mark that is never closed would otherwise bring the rest of the file into memory.
type bounded struct {
	io.Reader
	kept bytes.Buffer
	from int64 // where in the file the kept begin
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.kept.Len() > maxRow {
		return 0, fmt.Errorf("longer than %d bytes; is a quotation mark not closed?", maxRow)
	}
	n, err := b.Reader.Read(p)
	b.kept.Write(p[:n])
	return n, err
}

// cut returns what was kept up to a place in the file, and keeps it no longer.
func (b *bounded) cut(end int64) string {
	raw := strings.Trim(string(b.kept.Next(int(end-b.from))), "\r\n")
	b.from = end
	return raw
}
