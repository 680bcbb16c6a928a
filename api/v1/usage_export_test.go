package v1_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/accrue-billing/accrue/api/v1"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/changes"
	"github.com/accrue-billing/accrue/internal/importer"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/pkg/money"
)

// exportStore exports what a test says.
type exportStore struct {
	metering.Store
	export func(each func(*metering.Record) error) error
}

func (s exportStore) Export(_ context.Context, _ account.ID, _ metering.Filter, each func(*metering.Record) error) error {
	return s.export(each)
}

func exported(n int) *metering.Record {
	at := time.Date(2026, 3, 10, 8, 0, 0, 0, time.UTC)
	return &metering.Record{
		Event: metering.Event{ID: strconv.Itoa(n), Source: "s", Meter: "voice", Quantity: money.DecimalFromInt(1), OccurredAt: at}, ReceivedAt: at,
	}
}

// An export that fails on its way must not look like one that is complete, however little was written.
func TestExportThatBreaksOffIsNotTakenForAWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	for _, events := range []int{0, 1, 100, 5000} {
		w.deps.V1.Metering.Store = exportStore{w.db.Usage(), func(each func(*metering.Record) error) error {
			for n := range events {
				if err := each(exported(n)); err != nil {
					return err
				}
			}
			return errors.New("the database has gone")
		}}
		r := w.replica(t, v1.Streams{}, changes.Options{})
		for _, format := range []string{"csv", "ndjson"} {
			resp, err := r.request(t.Context(), ada, http.MethodGet, "/v1/usage/export?format="+format, "")
			if err != nil { // nothing came at all
				continue
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err == nil && resp.StatusCode == http.StatusOK {
				t.Errorf("%s: %d bytes pass for everything", format, len(body))
			}
			if resp.StatusCode != http.StatusOK && resp.Header.Get("Content-Disposition") != "" {
				t.Errorf("%s: a problem that is to be saved as a file", format)
			}
		}
	}
}

// Whoever asks for an export and takes nothing of it is cut off: the export holds a connection of the database.
func TestExportDoesNotWaitForASlowReader(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	ended := make(chan struct{}, 4)
	w.deps.V1.Metering.Store = exportStore{w.db.Usage(), func(each func(*metering.Record) error) error {
		for n := 0; ; n++ {
			if err := each(exported(n)); err != nil {
				ended <- struct{}{}
				return err
			}
		}
	}}
	r := w.replica(t, v1.Streams{Patience: 3 * time.Second}, changes.Options{})
	resp, err := r.request(t.Context(), ada, http.MethodGet, "/v1/usage/export", "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	for range 2 {
		resp, err := r.request(t.Context(), ada, http.MethodGet, "/v1/usage/export", "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
	}
	if resp, err := r.request(t.Context(), ada, http.MethodGet, "/v1/usage/export", ""); err != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one more than there are connections for: %v, %v", resp, err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the export waits for its reader")
	}
}

// importedFrom keeps what an import sends.
type importedFrom []string

func (s *importedFrom) Send(_ context.Context, events []json.RawMessage) ([]importer.Outcome, error) {
	for _, e := range events {
		*s = append(*s, string(e))
	}
	return make([]importer.Outcome, len(events)), nil
}

// What customers name their calls is no formula in the spreadsheet of whoever opens an export, and the names are what they
// were where an export is imported.
func TestExportToCSVIsNoFormulaAndIsReadBackAsItWas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	var events, want []string
	for _, text := range []string{"=1+1", "+49301", "-5", "@SUM(A1)", "'=1", "'quoted'", "plain, \"with\" all"} {
		name, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		e := fmt.Sprintf(`{"dimensions":{"project":%s},"id":%s,"meter":"voice","quantity":"1.5","source":%s,"timestamp":"2026-03-10T08:00:00Z"}`, name, name, name)
		events, want = append(events, e), append(want, e)
	}
	ada.post(t, "/v1/usage/events", batch(events...)).want(t, http.StatusOK)

	out := ada.get(t, "/v1/usage/export?format=csv").want(t, http.StatusOK).Body
	rows, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows[1:] {
		for _, cell := range row {
			if cell != "" && strings.ContainsRune("=+-@", rune(cell[0])) {
				t.Errorf("%q is a formula", cell)
			}
		}
	}

	for format, body := range map[string][]byte{"csv": out, "ndjson": ada.get(t, "/v1/usage/export?format=ndjson").want(t, http.StatusOK).Body} {
		path := filepath.Join(t.TempDir(), "usage."+format)
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
		var got importedFrom
		if _, err := importer.Run(t.Context(), path, &got, importer.Options{}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s is read back as\n%s\nwas\n%s", format, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}
