package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one postmaster.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // how it ended; read after done
	log  *serverLog
}

// spawn starts the postmaster and waits until it takes connections.
func spawn(ctx context.Context, bin binaries, dir string, who owner, set map[string]string, logger *slog.Logger) (*process, error) {
	log := &serverLog{logger: logger}
	cmd := exec.Command(bin.path("postgres")) //nolint:gosec,noctx // the operator's own PostgreSQL; stopped by Stop, never killed by a context
	if err := who.prepare(cmd, dir); err != nil {
		return nil, fmt.Errorf("embedded postgres: %w", err)
	}
	defer closeFiles(cmd)
	names := make([]string, 0, len(set))
	for k := range set {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		cmd.Args = append(cmd.Args, "-c", k+"="+set[k])
	}
	cmd.Stdout, cmd.Stderr = log, log
	dieWithParent(cmd.SysProcAttr)

	p := &process{cmd: cmd, done: make(chan struct{}), log: log}
	started := make(chan error)
	go func() {
		// The kernel ties the death signal to the thread that forked, not to the process (golang/go#27505):
		// the thread must live as long as the server.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("embedded postgres: start: %w", err)
	}
	if err := p.ready(ctx, dir); err != nil {
		return nil, err
	}
	return p, nil
}

// ready waits for line 8 of postmaster.pid to say "ready", as pg_ctl does: cheaper and more exact
// than trying to connect.
func (p *process) ready(ctx context.Context, dir string) error {
	for {
		pid, ready, err := pidFile(dir)
		if err == nil && ready && pid == p.cmd.Process.Pid {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("embedded postgres: the server ended at once: %w\n%s", p.err, p.log.tail())
		default:
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			_ = p.stop(stopCtx)
			return fmt.Errorf("embedded postgres: not ready in time: %w\n%s", err, p.log.tail())
		}
	}
}

// stop asks for a fast shutdown, and for an immediate one when ctx ends.
func (p *process) stop(ctx context.Context) error {
	select {
	case <-p.done:
		return fmt.Errorf("embedded postgres: the server had ended before: %w\n%s", exitError(p.err), p.log.tail())
	default:
	}
	p.log.expectEnd()
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-p.done:
	case <-ctx.Done():
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		<-p.done
		return fmt.Errorf("embedded postgres: stopped without a checkpoint, the next start recovers: %w", ctx.Err())
	}
	if p.err != nil {
		return fmt.Errorf("embedded postgres: stop: %w\n%s", p.err, p.log.tail())
	}
	return nil
}

func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// serverLog passes the server's log lines on and remembers the last ones for error messages.
type serverLog struct {
	logger *slog.Logger
	mu     sync.Mutex
	part   string
	last   []string
	ending bool // asked to: that connections are cut off is no news then
}

func (l *serverLog) expectEnd() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ending = true
}

const tailLines = 20

// Write takes what the server says, which may be less or more than a line.
func (l *serverLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(l.part+string(b), "\n")
	l.part = lines[len(lines)-1]
	for _, line := range lines[:len(lines)-1] {
		l.last = append(l.last, line)
		if len(l.last) > tailLines {
			l.last = l.last[1:]
		}
		level := slog.LevelDebug
		if strings.HasPrefix(line, "FATAL:") && !l.ending || strings.HasPrefix(line, "PANIC:") {
			level = slog.LevelWarn
		}
		l.logger.Log(context.Background(), level, "postgres", "line", line)
	}
	return len(b), nil
}

func (l *serverLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.last, "\n")
}

var _ interface{ Write([]byte) (int, error) } = (*serverLog)(nil)

// handOver opens the data folder for a server that could not walk down to it; see the systems' files.
func handOver(cmd *exec.Cmd, dataDir string) (string, error) {
	if !descriptorPaths {
		return "", fmt.Errorf("the user that runs the server cannot reach %s: give its parents the permission x, or choose another data folder", dataDir)
	}
	f, err := os.Open(dataDir) //nolint:gosec // our own data folder
	if err != nil {
		return "", err
	}
	cmd.ExtraFiles = []*os.File{f} // becomes descriptor 3
	return "/proc/self/fd/3", nil
}
