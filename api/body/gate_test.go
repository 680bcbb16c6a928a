package body_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/accrue-billing/accrue/api/body"
)

func post(t *testing.T, r io.Reader, size int64) *http.Request {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", r)
	req.ContentLength = size
	return req
}

// Large bodies wait in line for room and are sent away in the end; small ones are taken all the while.
func TestGate(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	large := bytes.Repeat([]byte("x"), limit)
	synctest.Test(t, func(t *testing.T) {
		gate := body.NewGate(limit)
		read := func(req *http.Request) (int, func(), error) {
			data, done, err := gate.Read(httptest.NewRecorder(), req, limit)
			return len(data), done, err
		}
		n, done, err := read(post(t, bytes.NewReader(large), limit))
		if n != limit || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		for name, req := range map[string]*http.Request{
			"Small":                 post(t, bytes.NewReader(large[:body.Small]), body.Small),
			"SmallOfUnknownLength":  post(t, bytes.NewReader(large[:body.Small-1]), -1),
			"SmallOnceDecompressed": packedPost(t, body.Small/2),
			"NotABody":              post(t, http.NoBody, 0),
			"LargerThanIsEverTaken": post(t, bytes.NewReader(large), limit+1),
		} {
			if _, d, err := read(req); errors.Is(err, body.ErrBusy) {
				t.Errorf("%s: waited", name)
			} else {
				d()
			}
		}
		for name, req := range map[string]*http.Request{
			"Large":                 post(t, bytes.NewReader(large), limit),
			"LargeOfUnknownLength":  post(t, bytes.NewReader(large), -1),
			"LargeOnceDecompressed": packedPost(t, limit),
		} {
			if _, d, err := read(req); !errors.Is(err, body.ErrBusy) {
				t.Errorf("%s: %v, want busy", name, err)
			} else {
				d()
			}
		}
		got := make(chan int)
		for range 3 { // each leaves the room to the next
			go func() {
				n, done, err := read(packedPost(t, limit))
				defer done()
				if err != nil {
					t.Error(err)
				}
				got <- n
			}()
		}
		synctest.Wait()
		done()
		for range 3 {
			if n := <-got; n != limit {
				t.Errorf("%d bytes", n)
			}
		}
		// What is refused leaves its room.
		for range 2 {
			if _, d, err := read(packedPost(t, 8*limit)); !errors.Is(err, body.ErrTooLarge) {
				t.Errorf("%v, want too large", err)
			} else {
				d()
			}
		}
	})
}

func packedPost(t *testing.T, size int) *http.Request {
	t.Helper()
	sent := zipped(t, size)
	req := post(t, bytes.NewReader(sent), int64(len(sent)))
	req.Header.Set("Content-Encoding", "gzip")
	return req
}

// Whoever has the room and does not send is cut off.
func TestGate_SlowSendersGiveWay(t *testing.T) {
	t.Parallel()
	gate := body.NewGate(1 << 20).WithPatience(100 * time.Millisecond)
	answer := make(chan error, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, done, err := gate.Read(w, req, 1<<20)
		done()
		answer <- err
	}))
	defer server.Close()
	slow, end := io.Pipe()
	defer func() { _ = end.Close() }()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, slow)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = 1 << 20
	go func() {
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	if err := <-answer; !errors.Is(err, body.ErrSlow) {
		t.Errorf("%v, want too slow", err)
	}
}

// A frame that comes after a small one must not unfold in memory that nobody asked room for.
func TestGate_ALaterFrameHasNoLargerWindow(t *testing.T) {
	t.Parallel()
	frame := func(window int) []byte {
		var out bytes.Buffer
		z, err := zstd.NewWriter(&out, zstd.WithWindowSize(window))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // with two blocks, so that the frame says what window it has
			_, _ = z.Write([]byte("{}"))
			_ = z.Flush()
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	read := func(frames ...[]byte) ([]byte, error) {
		sent := bytes.Join(frames, nil)
		req := post(t, bytes.NewReader(sent), int64(len(sent)))
		req.Header.Set("Content-Encoding", "zstd")
		data, done, err := body.NewGate(1<<20).Read(httptest.NewRecorder(), req, 1<<20)
		done()
		return data, err
	}
	if data, err := read(frame(16 << 20)); !errors.Is(err, body.ErrWindow) {
		t.Errorf("one that is too large alone: %s, %v", data, err)
	}
	small, large := frame(1<<10), frame(4<<20)
	if data, err := read(small, small); err != nil || string(data) != "{}{}{}{}" {
		t.Errorf("small ones: %s, %v", data, err)
	}
	if data, err := read(large, small); err != nil || string(data) != "{}{}{}{}" {
		t.Errorf("the large one first: %s, %v", data, err)
	}
	if data, err := read(small, large); !errors.Is(err, body.ErrWindow) {
		t.Errorf("a large one behind a small one: %s, %v", data, err)
	}
}

// A window takes memory whatever the operation's limit is: room is asked for all of it.
func TestGate_AWindowTakesRoom(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		gate := body.NewGate(8 << 20)
		windowed := func() error {
			req := post(t, bytes.NewReader(frame(1, 1000)), -1)
			req.Header.Set("Content-Encoding", "zstd")
			_, done, err := gate.Read(httptest.NewRecorder(), req, limit)
			done()
			return err
		}
		if err := windowed(); err != nil {
			t.Fatalf("alone: %v", err)
		}
		_, done, err := gate.Read(httptest.NewRecorder(), post(t, bytes.NewReader(make([]byte, limit)), limit), limit)
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		if err := windowed(); !errors.Is(err, body.ErrBusy) {
			t.Errorf("beside another body: %v, want busy", err)
		}
	})
}
