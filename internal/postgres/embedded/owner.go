package embedded

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// owner is the system user that the server runs as. PostgreSQL refuses to run as root, so root hands
// the work to another user.
type owner struct {
	uid, gid uint32
	dropped  bool // we are root and the server is not
}

// runAs decides the server's user: ourselves; or, for root, whoever owns the data already, or else
// the packages' user postgres, or else nobody.
func runAs(dataDir string) (owner, error) {
	fi, statErr := os.Stat(dataDir)
	euid := uint32(os.Geteuid()) //nolint:gosec // never negative on unix
	if euid != 0 {
		who := owner{uid: euid, gid: uint32(os.Getegid())} //nolint:gosec // never negative on unix
		if statErr == nil && !who.owns(fi) {
			return owner{}, fmt.Errorf("embedded postgres: %s belongs to another user; start as that user, or chown it", dataDir)
		}
		return who, nil
	}
	if statErr == nil {
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Uid != 0 {
			return owner{uid: st.Uid, gid: st.Gid, dropped: true}, nil
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil && uid != 0 {
			return owner{uid: uint32(uid), gid: uint32(gid), dropped: true}, nil
		}
	}
	return owner{}, errors.New("embedded postgres: running as root, and there is neither a user postgres nor nobody to run the server as")
}

// owns reports whether the file is the server's user's, or ours to give away.
func (o owner) owns(fi os.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == o.uid || o.dropped && st.Uid == 0)
}

// own gives one file or folder to the server's user.
func (o owner) own(path string) error {
	if !o.dropped {
		return nil
	}
	return os.Lchown(path, int(o.uid), int(o.gid))
}

// mkdir makes a folder of the server's user that nobody else can enter.
func (o owner) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return o.own(path)
}

// prepare makes cmd run as the server's user on the data folder, with an environment of its own:
// nothing of ours (PGOPTIONS, secrets) leaks into the server.
func (o owner) prepare(cmd *exec.Cmd, dataDir string) error {
	cmd.Dir = "/" // our own working folder may be closed to that user
	cmd.Env = []string{"PATH=" + filepath.Dir(cmd.Path) + ":/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us; we stop the server when we are done
	path := dataDir
	if o.dropped {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: o.uid, Gid: o.gid, Groups: []uint32{}}
		if !o.reaches(dataDir) {
			var err error
			if path, err = handOver(cmd, dataDir); err != nil {
				return err
			}
		}
	}
	cmd.Args = append(cmd.Args, "-D", path)
	return nil
}

// reaches reports whether the server's user may walk down to path: a folder below /root or a private
// temporary folder is closed to it.
func (o owner) reaches(path string) bool {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err != nil {
			return false
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return false
		}
		mode := fi.Mode().Perm()
		switch {
		case st.Uid == o.uid:
			mode >>= 6
		case st.Gid == o.gid:
			mode >>= 3
		}
		if mode&1 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// closeFiles closes our copies of the descriptors that cmd was given.
func closeFiles(cmd *exec.Cmd) {
	for _, f := range cmd.ExtraFiles {
		_ = f.Close()
	}
}
