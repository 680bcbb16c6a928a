package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// parentDir makes this binary play the owner of a server that a test then kills.
const parentDir = "ACCRUE_TEST_EMBEDDED_PARENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentDir); dir != "" {
		s, err := Start(context.Background(), testConfig(dir))
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println(s.DSN("postgres"))
		select {} // until it is killed
	}
	code := m.Run()
	if golden != "" {
		_ = os.RemoveAll(golden)
	}
	os.Exit(code)
}

// golden is a finished cluster that tests copy, since making one costs a second of CPU.
var (
	golden     string
	makeGolden = sync.OnceValue(func() (err error) {
		if golden, err = os.MkdirTemp("", "accrue-golden-"); err != nil {
			return err
		}
		s, err := Start(context.Background(), testConfig(filepath.Join(golden, "pg")))
		if err != nil {
			return err
		}
		return s.Stop(context.Background())
	})
)

// cluster returns a data folder that has been used before.
func cluster(t *testing.T) string {
	t.Helper()
	if err := makeGolden(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "pg")
	if out, err := exec.Command("cp", "-a", filepath.Join(golden, "pg"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

func testConfig(dir string) Config {
	return Config{DataDir: dir, BinDir: os.Getenv("ACCRUE_PG_BIN"), Settings: map[string]string{"shared_buffers": "16MB"}}
}

func start(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := Start(t.Context(), testConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop(context.Background()) })
	return s
}

func query(t *testing.T, dsn, sql string) (answer string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := conn.QueryRow(t.Context(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&answer); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatal(err)
	}
	return answer
}

func TestStart_ColdThenWarmKeepsTheData(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pg")

	s := start(t, dir)
	if err := s.EnsureDatabase(t.Context(), "books"); err != nil {
		t.Fatal(err)
	}
	query(t, s.DSN("books"), "CREATE TABLE t AS SELECT 'kept'::text AS v; SELECT v FROM t")
	if err := s.Stop(t.Context()); err != nil {
		t.Fatalf("stop: %v", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatalf("second stop: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "postmaster.pid")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("postmaster.pid after stop: %v", err)
	}
	if _, err := os.Stat(s.socketDir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("socket folder after stop: %v", err)
	}

	s = start(t, dir)
	if err := s.EnsureDatabase(t.Context(), "books"); err != nil {
		t.Fatal(err)
	}
	if got := query(t, s.DSN("books"), "SELECT v FROM t"); got != "kept" {
		t.Fatalf("after a restart: %q", got)
	}
}

func TestStart_ListensOnNoNetworkAddress(t *testing.T) {
	t.Parallel()
	s := start(t, cluster(t))
	if got := query(t, s.DSN("postgres"), "SHOW listen_addresses"); got != "" {
		t.Fatalf("listen_addresses = %q", got)
	}
	fi, err := os.Stat(s.socketDir)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o700 {
		t.Fatalf("socket folder has mode %v", fi.Mode())
	}
}

func TestStart_SecondOwnerIsRefused(t *testing.T) {
	t.Parallel()
	dir := cluster(t)
	s := start(t, dir)

	_, err := Start(t.Context(), testConfig(dir))
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Fatalf("second start: %v", err)
	}
	if got := query(t, s.DSN("postgres"), "SELECT 'alive'"); got != "alive" {
		t.Fatal("the first server was disturbed")
	}
	dsn, err := Attach(dir, "postgres")
	if err != nil || query(t, dsn, "SELECT 'attached'") != "attached" {
		t.Fatalf("attach: %v", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Attach(dir, "postgres"); err == nil {
		t.Fatal("attached to a server that is not there")
	}
}

func TestStart_AfterTheParentWasKilled(t *testing.T) {
	t.Parallel()
	dir := cluster(t)
	for round := range 3 {
		parent := exec.Command(os.Args[0])
		parent.Env = append(os.Environ(), parentDir+"="+dir)
		out, err := parent.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := parent.Start(); err != nil {
			t.Fatal(err)
		}
		dsn, err := bufio.NewReader(out).ReadString('\n')
		if err != nil || !strings.HasPrefix(dsn, "postgres://") {
			t.Fatalf("helper said %q, %v", dsn, err)
		}
		dsn = strings.TrimSpace(dsn)
		if round == 0 {
			query(t, dsn, "CREATE TABLE t (v text)")
		}
		query(t, dsn, fmt.Sprintf("INSERT INTO t VALUES ('%d')", round))
		if err := parent.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = parent.Wait()

		s := start(t, dir) // at once: the old server may still be writing its checkpoint
		if got := query(t, s.DSN("postgres"), "SELECT count(*)::text FROM t"); got != fmt.Sprint(round+1) {
			t.Fatalf("round %d: %s rows", round, got)
		}
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStart_StalePidOfAnotherProcess(t *testing.T) {
	t.Parallel()
	dir := cluster(t)
	if err := start(t, dir).Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The number now belongs to a living process of the server's user.
	who, err := runAs(dir)
	if err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "60")
	if who.dropped {
		other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: who.uid, Gid: who.gid}}
		other.Dir = "/"
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	pidPath := filepath.Join(dir, "postmaster.pid")
	if err := os.WriteFile(pidPath, fmt.Appendf(nil, "%d\n%s\n", other.Process.Pid, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := who.own(pidPath); err != nil {
		t.Fatal(err)
	}
	start(t, dir)
}

func TestStart_RecoversAfterTheServerWasKilled(t *testing.T) {
	t.Parallel()
	dir := cluster(t)
	s := start(t, dir)
	query(t, s.DSN("postgres"), "CREATE TABLE t AS SELECT 'committed'::text AS v")
	if err := s.proc.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if err := s.Stop(t.Context()); err == nil {
		t.Fatal("Stop said nothing of a server that had died")
	}
	if got := query(t, start(t, dir).DSN("postgres"), "SELECT v FROM t"); got != "committed" {
		t.Fatalf("after recovery: %q", got)
	}
}

func TestStart_OtherMajorVersionIsRefusedUntouched(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pg")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), testConfig(dir))
	if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "PostgreSQL 9") {
		t.Fatalf("start: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Fatalf("the folder was changed: %v", entries)
	}
}

func TestStart_ForeignFolderIsRefusedUntouched(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pg")
	if err := os.MkdirAll(filepath.Join(dir, "photos"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), testConfig(dir)); !errors.Is(err, ErrForeign) {
		t.Fatalf("start: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "photos")); err != nil {
		t.Fatal(err)
	}
}

func TestStart_InterruptedInitLeavesNoHalfCluster(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pg")
	if err := os.MkdirAll(filepath.Join(dir+".initdb-incomplete", "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	start(t, dir)
}

func TestStart_CancelledWhileStarting(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pg")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, testConfig(dir)); !errors.Is(err, context.Canceled) {
		t.Fatalf("start: %v", err)
	}
	start(t, dir) // and nothing stands in the way of the next
}

func TestStart_BadSettings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		setting, value, want string
	}{
		"the launcher's own": {"listen_addresses", "*", "launcher's own"},
		"unknown to server":  {"no_such_setting", "1", "no_such_setting"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(cluster(t))
			cfg.Settings = map[string]string{c.setting: c.value}
			_, err := Start(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("start: %v", err)
			}
		})
	}
}

func TestStart_LongPath(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30), "pg")
	s := start(t, dir)
	if got := query(t, s.DSN("postgres"), "SELECT 'reached'"); got != "reached" {
		t.Fatal(got)
	}
}

func TestStop_ImmediateWhenTimeIsUp(t *testing.T) {
	t.Parallel()
	s := start(t, cluster(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Stop(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the server is still there")
	}
}

func TestFindBinaries(t *testing.T) {
	t.Parallel()
	install := func(t *testing.T, root, version string) string {
		t.Helper()
		dir := filepath.Join(root, version, "bin")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + ".3 (test)'\n"
		for _, name := range []string{"postgres", "initdb"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}

	t.Run("NoneFoundNamesThePackages", func(t *testing.T) {
		t.Parallel()
		_, err := findBinaries("", 0, []string{filepath.Join(t.TempDir(), "*")})
		for _, want := range []string{"apt-get install postgresql", "brew install postgresql", "pg-bin", "database-url"} {
			if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), want) {
				t.Fatalf("want %q in: %v", want, err)
			}
		}
	})
	t.Run("GivenFolderWithoutPrograms", func(t *testing.T) {
		t.Parallel()
		if _, err := findBinaries(t.TempDir(), 0, nil); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	})
	t.Run("NewestForANewFolder", func(t *testing.T) {
		t.Parallel()
		root := t.TempDir()
		install(t, root, "15")
		want := install(t, root, "17")
		install(t, root, "9")
		b, err := findBinaries("", 0, []string{filepath.Join(root, "*", "bin")})
		if err != nil || b.dir != want || b.major != 17 {
			t.Fatalf("%+v, %v", b, err)
		}
	})
	t.Run("MatchingForAnExistingFolder", func(t *testing.T) {
		t.Parallel()
		root := t.TempDir()
		want := install(t, root, "15")
		install(t, root, "17")
		b, err := findBinaries("", 15, []string{filepath.Join(root, "*", "bin")})
		if err != nil || b.dir != want {
			t.Fatalf("%+v, %v", b, err)
		}
		if _, err := findBinaries("", 16, []string{filepath.Join(root, "*", "bin")}); !errors.Is(err, ErrVersion) {
			t.Fatalf("no 16: %v", err)
		}
	})
	t.Run("TooOld", func(t *testing.T) {
		t.Parallel()
		root := t.TempDir()
		dir := install(t, root, "14")
		if _, err := findBinaries(dir, 0, nil); !errors.Is(err, ErrVersion) {
			t.Fatalf("given: %v", err)
		}
		if _, err := findBinaries("", 0, []string{dir}); !errors.Is(err, ErrNotFound) {
			t.Fatalf("searched: %v", err)
		}
	})
}
