package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/postgres/embedded"
)

// unlimited opens an account that no limit stops, and returns a token for it.
func (d *deployment) unlimited(tb testing.TB, p *process, pool *pgxpool.Pool, name string) string {
	tb.Helper()
	token := d.token(tb, name)
	if _, err := p.get(tb.Context(), "/v1/usage", token); err != nil {
		tb.Fatal(err)
	}
	if _, err := pool.Exec(tb.Context(), "UPDATE entitlements SET limits = '{}', version = version + 1"); err != nil {
		tb.Fatal(err)
	}
	return token
}

// peak is the largest resident memory that the process has had, as the kernel writes it.
func (p *process) peak() string {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return "unknown"
	}
	for line := range bytes.Lines(status) {
		if v, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			return string(bytes.TrimSpace(v))
		}
	}
	return "unknown"
}

// end ends the process as an operator does, so that a private database of its own ends with it.
func (p *process) end() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.gone
}

// privateDSN is how to reach the private database that the deployment's process runs.
func (d *deployment) privateDSN(tb testing.TB) string {
	tb.Helper()
	dsn, err := embedded.Attach(filepath.Join(d.dir, "postgres"), "accrue")
	if err != nil {
		tb.Fatal(err)
	}
	return dsn
}

// get asks the service and returns the body of a 200.
func (p *process) get(ctx context.Context, path, token string) ([]byte, error) {
	return p.ask(ctx, http.MethodGet, path, token, nil)
}

func (p *process) ask(ctx context.Context, method, path, token string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.api+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, answer)
	}
	return answer, err
}
