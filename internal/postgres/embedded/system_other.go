//go:build !linux

package embedded

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// descriptorPaths: there is no /proc here.
const descriptorPaths = false

// dieWithParent can do nothing: only Linux has a parent death signal. The next start adopts the server.
func dieWithParent(*syscall.SysProcAttr) {}

// isPostmaster reports whether the process is a PostgreSQL server.
func isPostmaster(pid int, _ string) bool {
	out, err := exec.Command("ps", "-o", "comm=", "-p", strconv.Itoa(pid)).Output() //nolint:gosec,noctx // a number; answers at once
	return err == nil && strings.Contains(string(out), "postgres")
}

// adoptOrphan ends a server that outlived its owner. A server with a living parent was started by
// someone else and is left alone.
func adoptOrphan(pid int) error {
	out, err := exec.Command("ps", "-o", "ppid=", "-p", strconv.Itoa(pid)).Output() //nolint:gosec,noctx // a number; answers at once
	if err != nil {
		return nil //nolint:nilerr // gone meanwhile
	}
	if strings.TrimSpace(string(out)) != "1" {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGINT); err != nil && alive(pid) {
		return fmt.Errorf("embedded postgres: stop the orphaned server %d: %w", pid, err)
	}
	return nil
}
