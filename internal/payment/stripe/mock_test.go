package stripe_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// mockModule is Stripe's own mock of its API: it checks requests against Stripe's specification.
const mockModule = "github.com/stripe/stripe-mock@v0.203.0"

// startStripeMock starts stripe-mock, building it first where it is not there, and returns its URL.
func startStripeMock(t *testing.T) string {
	t.Helper()
	binary, err := stripeMock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	address, https := freeAddress(t), freeAddress(t)
	cmd := exec.Command(binary, "-http-addr", address, "-https-addr", https)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(30 * time.Second); ; {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = conn.Close()
			return "http://" + address
		}
		if time.Now().After(deadline) {
			t.Fatalf("stripe-mock does not listen: %v", err)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// stripeMock returns the path of the program: $STRIPE_MOCK, .bin at the root of the repository, the
// PATH, or one that is built now and kept in the user's cache.
func stripeMock(ctx context.Context) (string, error) {
	if path := os.Getenv("STRIPE_MOCK"); path != "" {
		return path, nil
	}
	if path, err := filepath.Abs("../../../.bin/stripe-mock"); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath("stripe-mock"); err == nil {
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "accrue", "stripe-mock-v0.203.0")
	path := filepath.Join(dir, "stripe-mock")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.CommandContext(ctx, "go", "install", mockModule)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build stripe-mock: %w\n%s", err, out)
	}
	return path, nil
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
