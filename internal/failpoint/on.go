//go:build faults

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// patience bounds how long anybody is held, so that a test with a mistake ends.
	patience = 20 * time.Second
	// company is how long those who have come to a meeting wait for one more. Operations that share a transaction go in
	// step, so who is held in it may hold up the others; they die wherever they are then.
	company = time.Second
)

var armed struct {
	sync.Mutex
	line string    // as it was read last
	hits int       // of the point in line, since it was armed
	last time.Time // of them
}

// Hit does what the control file asks for at this point.
func Hit(op Op, point Point) {
	line := read()
	name, action, n, ok := parse(line)
	if !ok || name != string(op)+"."+string(point) {
		return
	}
	hits := count(line)
	switch action {
	case "kill":
		if hits == n {
			die()
		}
	case "meet":
		for end := time.Now().Add(patience); read() == line && time.Now().Before(end); time.Sleep(time.Millisecond) { //nolint:forbidigo // real time, in tests only
			if hits, quiet := reached(line); hits >= n || hits > 0 && quiet > company {
				die()
			}
		}
	case "panic":
		if hits == n {
			panic("failpoint " + name)
		}
	case "hold":
		for end := time.Now().Add(patience); read() == line && time.Now().Before(end); time.Sleep(time.Millisecond) { //nolint:forbidigo // as above
		}
	}
}

func read() string {
	b, err := os.ReadFile(os.Getenv(Variable))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func parse(line string) (name, action string, n int, ok bool) {
	f := strings.Fields(line)
	if len(f) < 2 {
		return "", "", 0, false
	}
	n = 1
	if len(f) > 2 {
		n, _ = strconv.Atoi(f[2])
	}
	return f[0], f[1], n, true
}

func count(line string) int {
	armed.Lock()
	defer armed.Unlock()
	if armed.line != line {
		armed.line, armed.hits = line, 0
	}
	armed.hits++
	armed.last = time.Now() //nolint:forbidigo // real time, in tests only
	return armed.hits
}

// reached returns how often the point was reached, and how long ago for the last time.
func reached(line string) (hits int, quiet time.Duration) {
	armed.Lock()
	defer armed.Unlock()
	if armed.line != line {
		return 0, 0
	}
	return armed.hits, time.Since(armed.last) //nolint:forbidigo // as above
}

// die ends the process as a power cut does: nothing is deferred, nothing flushed.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
