package e2e_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// rowsFile is a generated CSV file, and what an import of it must come to.
type rowsFile struct {
	path   string
	rows   int64
	bad    int64 // rows that are no events
	tenths int64 // of a second, over all the good ones
}

// writeRows writes a compressed file of calls by a seed; every thousandth is wrong. Its columns have
// names of their own, as an export of another system has.
func writeRows(path string, rows int64) (f rowsFile, err error) {
	f = rowsFile{path: path, rows: rows}
	out, err := os.Create(path)
	if err != nil {
		return f, err
	}
	z := gzip.NewWriter(out)
	w := bufio.NewWriterSize(z, 64<<10)
	rng := rand.New(rand.NewPCG(seed, 0))
	// Of today, since the first period of the account begins with the day on which it was opened.
	now := time.Now().UTC()
	begin := now.Truncate(24 * time.Hour)
	seconds := 1 + int64(now.Sub(begin)/time.Second)
	_, _ = w.WriteString("call,seconds,ended,team,note\n")
	for i := range rows {
		quantity := strconv.FormatInt(rng.Int64N(600), 10) + "." + strconv.FormatInt(1+rng.Int64N(9), 10)
		if i%1000 == 500 {
			quantity, f.bad = "many", f.bad+1
		} else {
			tenths, _ := strconv.ParseInt(quantity[:len(quantity)-2]+quantity[len(quantity)-1:], 10, 64)
			f.tenths += tenths
		}
		at := begin.Add(time.Duration(rng.Int64N(seconds)) * time.Second).Format(time.RFC3339)
		_, _ = fmt.Fprintf(w, "call-%d,%s,%s,team-%d,\"a, b\"\n", i, quantity, at, rng.IntN(7))
	}
	return f, errors.Join(w.Flush(), z.Close(), out.Close())
}

// importing is `accrue import` of a file, under way.
type importing struct {
	cmd    *exec.Cmd
	stdout bytes.Buffer
	stderr bytes.Buffer
}

func startImport(program, api, token, path string, args ...string) (*importing, error) {
	args = append([]string{
		"import", "--url=" + api, "--map=call=id", "--map=seconds=quantity", "--map=ended=timestamp", "--map=team=dimensions.project",
		"--set=meter=voice", path,
	}, args...)
	in := &importing{cmd: exec.Command(program, args...)}
	in.cmd.Env = append(os.Environ(), "ACCRUE_TOKEN="+token)
	in.cmd.Stdout, in.cmd.Stderr = &in.stdout, &in.stderr
	in.cmd.SysProcAttr = dieWithParent()
	return in, in.cmd.Start()
}

// importCounts are the counts of an import, as it prints them.
type importCounts struct{ rows, accepted, duplicates, conflicts, rejected int64 }

func (in *importing) counts() (c importCounts, err error) {
	_, err = fmt.Sscanf(in.stdout.String(), "rows %d\naccepted %d\nduplicates %d\nconflicts %d\nrejected %d\n",
		&c.rows, &c.accepted, &c.duplicates, &c.conflicts, &c.rejected)
	if err != nil {
		err = fmt.Errorf("%w in %q, %s", err, in.stdout.String(), in.stderr.String())
	}
	return c, err
}

// settledRows reads from the checkpoint how many rows are settled.
func settledRows(path string) int64 {
	data, err := os.ReadFile(path + ".checkpoint")
	if err != nil {
		return 0 // not there yet
	}
	var c struct{ Counts struct{ Rows int64 } }
	if json.Unmarshal(data, &c) != nil {
		return 0
	}
	return c.Counts.Rows
}

// endAfter ends the import by a signal when more rows are settled than before.
func (in *importing) endAfter(ctx context.Context, path string, before int64, how os.Signal) (int64, error) {
	ended := make(chan struct{})
	go func() { _ = in.cmd.Wait(); close(ended) }()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for settledRows(path) <= before {
		select {
		case <-ended:
			return 0, fmt.Errorf("ended by itself: %s", in.stderr.String())
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	if err := in.cmd.Process.Signal(how); err != nil {
		return 0, err
	}
	<-ended
	return settledRows(path), nil
}

// check holds the counts of a complete import, the database and the rejected rows against the file.
func (f rowsFile) check(ctx context.Context, pool *pgxpool.Pool, c importCounts) error {
	var problems []error
	fail := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	good := f.rows - f.bad
	if c.rows != f.rows || c.rejected != f.bad || c.conflicts != 0 || c.accepted+c.duplicates != good {
		fail("counts are %+v, want %d rows, %d of them rejected", c, f.rows, f.bad)
	}
	var events, keys, counted, tenths int64
	err := pool.QueryRow(ctx, `SELECT (SELECT count(*) FROM usage_events), (SELECT count(*) FROM usage_event_keys),
  (SELECT sum(events)::bigint FROM usage_totals), (SELECT (sum(quantity) * 10)::bigint FROM usage_totals)`).Scan(&events, &keys, &counted, &tenths)
	if err != nil || events != good || keys != good || counted != good || tenths != f.tenths {
		fail("stored are %d events, %d identities, totals of %d events and %d tenths, want %d, %d, %d and %d (%w)",
			events, keys, counted, tenths, good, good, good, f.tenths, err)
	}
	return errors.Join(append(problems, f.checkRejects())...)
}

// checkRejects holds the rejects' file to having each wrong row once, in order, with the reason.
func (f rowsFile) checkRejects() error {
	file, err := os.Open(f.path + ".rejects.csv")
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	records, err := csv.NewReader(file).ReadAll()
	if err != nil || int64(len(records)) != 1+f.bad {
		return fmt.Errorf("%d rejected rows are written down, want %d (%w)", len(records)-1, f.bad, err)
	}
	for i, r := range records[1:] {
		if r[0] != strconv.Itoa(1000*i+501) || r[1] != "rejected" || r[2] != "invalid_quantity" || r[3] == "" {
			return fmt.Errorf("rejected row %d is %q", i, r)
		}
	}
	return nil
}

// An import that is killed, then interrupted, and then let go on has every row of its file counted
// once, and every wrong row written down once.
func TestImport_KilledAndInterruptedImportsEveryRowOnce(t *testing.T) {
	t.Parallel()

	const rows = 20_000
	program := binary(t, "faults")
	_, dsn := postgrestest.NewWithDSN(t)
	pool := postgrestest.Connect(t, dsn)
	d := newDeployment(t, program, "--database-url="+dsn, "--log-level=info")
	service, err := d.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(service.kill)
	token := d.unlimited(t, service, pool, "importer")
	file, err := writeRows(filepath.Join(t.TempDir(), "calls.csv.gz"), rows)
	if err != nil {
		t.Fatal(err)
	}

	settled := int64(0)
	for _, how := range []os.Signal{os.Kill, os.Interrupt, os.Kill} {
		in, err := startImport(program, service.api, token, file.path, "--batch=100")
		if err != nil {
			t.Fatal(err)
		}
		now, err := in.endAfter(t.Context(), file.path, settled, how)
		if err != nil || now <= settled || now >= rows {
			t.Fatalf("%v after row %d was to come in the middle: row %d, %v", how, settled, now, err)
		}
		settled = now
		if how == os.Interrupt {
			if c, err := in.counts(); err != nil || c.rows != settled {
				t.Errorf("interrupted after row %d, it says %+v, %v", settled, c, err)
			}
		}
	}
	in, err := startImport(program, service.api, token, file.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.cmd.Wait(); err == nil || in.cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("an import with rejected rows ended with %v", err)
	}
	c, err := in.counts()
	if err := errors.Join(err, file.check(t.Context(), pool, c)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file.path + ".checkpoint"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the checkpoint of a complete import is still there: %v", err)
	}
}

// BenchmarkImport imports a million generated rows into a service with a private PostgreSQL that
// syncs, and holds the counts to the database.
func BenchmarkImport(b *testing.B) {
	const rows = 1_000_000
	program := binary(b, "")
	d := newDeployment(b, program, "--log-level=info")
	service, err := d.start(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer service.end()
	pool := postgrestest.Connect(b, d.privateDSN(b))
	token := d.unlimited(b, service, pool, "importer")
	file, err := writeRows(filepath.Join(b.TempDir(), "calls.csv.gz"), rows)
	if err != nil {
		b.Fatal(err)
	}

	b.ResetTimer()
	begin := time.Now()
	in, err := startImport(program, service.api, token, file.path)
	if err != nil {
		b.Fatal(err)
	}
	_ = in.cmd.Wait() // it ends with 1: there are rejected rows
	took := time.Since(begin)
	b.StopTimer()
	c, err := in.counts()
	if err := errors.Join(err, file.check(b.Context(), pool, c)); err != nil {
		b.Fatal(err)
	}
	used := in.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	fmt.Printf(`
%d rows in %s                 %.0f rows/s
accepted %d, duplicates %d, conflicts %d, rejected %d; the database agrees: events, identities, totals
resident memory at its peak    service %s, importer %d kB
`, c.rows, took.Round(time.Millisecond), rows/took.Seconds(), c.accepted, c.duplicates, c.conflicts, c.rejected, service.peak(), used.Maxrss)
	b.ReportMetric(rows/took.Seconds(), "rows/s")
}
