package app_test

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// Idle connections cost memory, so there are only so many: what comes beyond them waits, and has its turn when one is
// closed.
func TestServe_TakesOnlySoManyConnections(t *testing.T) {
	t.Parallel()
	const most = 16
	p := serve(t, "--data-dir", t.TempDir(), "--database-url", postgrestest.DSN(t), "--connections", "16")
	http.DefaultClient.CloseIdleConnections() // those of serve itself
	connect := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := conn.Write([]byte("GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	answered := func(conn net.Conn, within time.Duration) error {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}

	var idle []net.Conn
	for range most {
		conn := connect()
		if err := answered(conn, time.Minute); err != nil {
			t.Fatalf("connection %d of %d: %v", len(idle)+1, most, err)
		}
		idle = append(idle, conn)
	}
	late := connect()
	if err := answered(late, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("connection %d is answered, though %d are open: %v", most+1, most, err)
	}
	if err := idle[0].Close(); err != nil {
		t.Fatal(err)
	}
	if err := answered(late, time.Minute); err != nil {
		t.Errorf("it has no turn when another is closed: %v", err)
	}
	for _, conn := range idle {
		_ = conn.Close()
	}
	_ = late.Close()
	p.end(t)
}
