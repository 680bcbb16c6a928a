package v1

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/accrue-billing/accrue/internal/metering"
)

// mergeResults returns what became of each event that came in: some could not be read, and the others have results.
func mergeResults(in []incoming, results []metering.Result) []metering.Result {
	if len(results) == len(in) {
		return results
	}
	merged := make([]metering.Result, len(in))
	next := 0
	for i := range in {
		if in[i].problem != nil {
			merged[i].Problem = in[i].problem
		} else {
			merged[i] = results[next]
			next++
		}
	}
	return merged
}

// appendUsageResults writes UsageResults. Nearly all results are an id and a status, and those are
// written by hand: a batch of 10,000 would otherwise spend more time here than in the database. A test
// compares the bytes with encoding/json's.
func appendUsageResults(b []byte, in []incoming, results []metering.Result, counts metering.Summary, listed bool) []byte {
	if cap(b) == 0 {
		b = make([]byte, 0, 80+len(in)*48)
	}
	b = append(b, `{"accepted":`...)
	b = strconv.AppendInt(b, int64(counts[metering.Accepted]), 10)
	b = append(b, `,"duplicates":`...)
	b = strconv.AppendInt(b, int64(counts[metering.Duplicate]), 10)
	b = append(b, `,"conflicts":`...)
	b = strconv.AppendInt(b, int64(counts[metering.Conflict]), 10)
	b = append(b, `,"rejected":`...)
	b = strconv.AppendInt(b, int64(counts[metering.Rejected]), 10)
	b = append(b, `,"results":[`...)
	for i := range results {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendUsageResult(b, &in[i], results[i], i, listed)
	}
	return append(b, "]}"...)
}

func appendUsageResult(b []byte, in *incoming, r metering.Result, i int, listed bool) []byte {
	if r.Problem == nil && r.Stored == nil && plainText(in.ID) {
		b = append(b, `{"id":"`...)
		b = append(b, in.ID...)
		b = append(b, `","status":"`...)
		b = append(b, r.Status.String()...)
		return append(b, `"}`...)
	}
	prefix := "#"
	if listed {
		prefix = "#/events/" + strconv.Itoa(i)
	}
	out, err := json.Marshal(usageResult(in, r, prefix))
	if err != nil {
		panic(err) // strings and times only
	}
	return append(b, out...)
}

// plainText reports whether a text stands in JSON as it is.
func plainText(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}
