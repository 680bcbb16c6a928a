package embedded

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// binaries are the programs of one installed PostgreSQL.
type binaries struct {
	dir   string
	major int
}

func (b binaries) path(program string) string { return filepath.Join(b.dir, program) }

// searchPlaces lists the folders, or patterns of folders, where packages put PostgreSQL.
func searchPlaces() []string {
	var places []string
	if p, err := exec.LookPath("initdb"); err == nil {
		places = append(places, filepath.Dir(p))
	}
	return append(places,
		"/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
		"/usr/pgsql-*/bin",                                   // Red Hat, from postgresql.org
		"/opt/homebrew/opt/postgresql*/bin",                  // Homebrew on Apple silicon
		"/usr/local/opt/postgresql*/bin",                     // Homebrew on Intel
		"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",     // Homebrew on Linux
		"/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
		"/opt/local/lib/postgresql*/bin",                     // MacPorts
		"/usr/local/pgsql/bin",                               // built from source
	)
}

// findBinaries returns the programs in dir if it is given; or else the installed ones that match the
// data folder's major version; or else, for a new folder (major 0), the newest.
func findBinaries(dir string, major int, places []string) (binaries, error) {
	if dir != "" {
		b, err := inspect(dir)
		if err != nil {
			return binaries{}, fmt.Errorf("%w in %s (option pg-bin): %w\n%s", ErrNotFound, dir, err, installHint)
		}
		return b, checkMajor(b, major)
	}
	var best binaries
	for _, pattern := range places {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, m := range matches {
			b, err := inspect(m)
			if err != nil || b.major < MinMajor {
				continue
			}
			if b.major == major {
				return b, nil
			}
			if b.major > best.major {
				best = b
			}
		}
	}
	if best.dir == "" {
		return binaries{}, fmt.Errorf("%w: no PostgreSQL %d or newer on this machine\n%s", ErrNotFound, MinMajor, installHint)
	}
	return best, checkMajor(best, major)
}

const installHint = `Install the server's programs (nothing needs to be configured or started):
  Debian, Ubuntu:  apt-get install postgresql
  macOS:           brew install postgresql@17
or name their folder with the option pg-bin, or point database-url at a running server.`

func checkMajor(b binaries, major int) error {
	switch {
	case b.major < MinMajor:
		return fmt.Errorf("%w: %s holds PostgreSQL %d; at least %d is needed", ErrVersion, b.dir, b.major, MinMajor)
	case major != 0 && b.major != major:
		return fmt.Errorf("%w: the data was written by PostgreSQL %d, but %s holds PostgreSQL %d; nothing was changed. "+
			"Install PostgreSQL %d, or move the data with pg_upgrade or pg_dump", ErrVersion, major, b.dir, b.major, major)
	}
	return nil
}

var versionOutput = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// inspect asks the programs in dir for their version.
func inspect(dir string) (binaries, error) {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return binaries{}, err
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output() //nolint:gosec,noctx // the operator's own PostgreSQL; answers at once
	if err != nil {
		return binaries{}, fmt.Errorf("postgres --version: %w", err)
	}
	m := versionOutput.FindStringSubmatch(string(out))
	if m == nil {
		return binaries{}, fmt.Errorf("postgres --version said %q", strings.TrimSpace(string(out)))
	}
	major, err := strconv.Atoi(m[1])
	if err != nil {
		return binaries{}, err
	}
	return binaries{dir: dir, major: major}, nil
}
