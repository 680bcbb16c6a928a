package embedded

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
)

// lockFolder makes this process the folder's owner until the returned lock is closed. The lock goes
// with the process, whatever kills it, and the server never inherits it.
func lockFolder(dir string) (*flock.Flock, error) {
	lock := flock.New(dir + ".lock")
	got, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("embedded postgres: lock %s: %w", dir, err)
	}
	if !got {
		holder, _ := os.ReadFile(lock.Path())
		return nil, fmt.Errorf("%w: process %s owns %s; stop it, or give this one a data folder of its own",
			ErrInUse, strings.TrimSpace(string(holder)), dir)
	}
	_ = os.WriteFile(lock.Path(), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600) // for the message above only
	return lock, nil
}

// clusterMajor returns the major version of the cluster in dir, and 0 if there is none yet. A folder
// that holds anything else is refused, since whatever is in it is not ours.
func clusterMajor(dir string) (int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "PG_VERSION")) //nolint:gosec // our own data folder
	if err == nil {
		major, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return 0, fmt.Errorf("%w: %s/PG_VERSION says %q", ErrForeign, dir, b)
		}
		return major, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("embedded postgres: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("embedded postgres: %w", err)
	}
	if len(entries) > 0 {
		return 0, fmt.Errorf("%w: %s is not empty and has no PG_VERSION; it was left as it is", ErrForeign, dir)
	}
	return 0, nil
}

// initCluster makes the cluster beside its place and then moves it there, so that an interrupted
// initdb never looks like a cluster.
func initCluster(ctx context.Context, bin binaries, dir string, who owner) error {
	draft := dir + ".initdb-incomplete"
	if err := os.RemoveAll(draft); err != nil { // what an interrupted initdb left; never held a row
		return fmt.Errorf("embedded postgres: %w", err)
	}
	if err := who.mkdir(draft); err != nil {
		return fmt.Errorf("embedded postgres: %w", err)
	}
	var out bytes.Buffer
	//nolint:gosec // the operator's own PostgreSQL
	cmd := exec.CommandContext(ctx, bin.path("initdb"),
		"--username="+Superuser, "--auth-local=peer", "--auth-host=reject",
		"--encoding=UTF8", "--locale=C", "--data-checksums")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := who.prepare(cmd, draft); err != nil {
		return fmt.Errorf("embedded postgres: %w", err)
	}
	dieWithParent(cmd.SysProcAttr)
	runtime.LockOSThread() // see spawn
	err := cmd.Run()
	runtime.UnlockOSThread()
	closeFiles(cmd)
	if err != nil && ctx.Err() != nil { // it was stopped: what it had said until then explains nothing
		return fmt.Errorf("embedded postgres: initdb: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("embedded postgres: initdb: %w\n%s", err, strings.TrimSpace(out.String()))
	}
	if err := os.Rename(draft, dir); err != nil {
		return fmt.Errorf("embedded postgres: %w", err)
	}
	return nil
}

// writeAccess writes who may connect. It does so at every start, because the data may have come to
// another user since.
func writeAccess(dir string, who owner) error {
	me, err := user.Current()
	if err != nil {
		return fmt.Errorf("embedded postgres: who am I: %w", err)
	}
	if strings.ContainsAny(me.Username, "\"\n\t ") {
		return fmt.Errorf("embedded postgres: cannot map the user name %q", me.Username)
	}
	files := map[string]string{
		"pg_hba.conf":   "local all all peer map=accrue\n",
		"pg_ident.conf": fmt.Sprintf("accrue %q %s\n", me.Username, Superuser),
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("embedded postgres: %w", err)
		}
		if err := who.own(path); err != nil {
			return fmt.Errorf("embedded postgres: %w", err)
		}
	}
	return nil
}

const (
	socketName = ".s.PGSQL.5432"
	// maxSocketPath is the smallest limit of the systems we run on (macOS 103, Linux 107).
	maxSocketPath = 103
)

// makeSocketDir returns the folder for the server's socket. It is not in the data folder, whose path
// may be longer than a socket's may be. Its name follows from the data folder, so that a killed
// server leaves at most one behind.
func makeSocketDir(dataDir string, who owner) (string, error) {
	sum := sha256.Sum256([]byte(dataDir))
	name := "accrue-pg-" + hex.EncodeToString(sum[:6])
	base := os.TempDir()
	if len(filepath.Join(base, name, socketName)) > maxSocketPath {
		base = "/tmp"
	}
	dir := filepath.Join(base, name)
	if fi, err := os.Lstat(dir); err == nil {
		if !fi.IsDir() || !who.owns(fi) {
			// Someone else took the name in a folder that all may write to.
			if dir, err = os.MkdirTemp(base, name+"-"); err != nil {
				return "", fmt.Errorf("embedded postgres: %w", err)
			}
		}
	} else if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("embedded postgres: %w", err)
	}
	if err := who.own(dir); err != nil {
		return "", fmt.Errorf("embedded postgres: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a folder needs its x bit
		return "", fmt.Errorf("embedded postgres: %w", err)
	}
	return dir, nil
}
