package embedded

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// descriptorPaths says that a process may name a folder by its open descriptor, without the right to
// walk there. So root's server can live in a folder below /root that its user could not reach.
const descriptorPaths = true

// dieWithParent makes the kernel send SIGINT, a fast shutdown, to the server when we die.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGINT }

// isPostmaster reports whether the process works in the data folder, as a postmaster does. After a
// crash of the machine its number may belong to anyone.
func isPostmaster(pid int, dir string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false
	}
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	return cwd == dir
}

// adoptOrphan has nothing to do: the kernel has told the server already.
func adoptOrphan(int) error { return nil }
