package body_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"

	"github.com/accrue-billing/accrue/api/body"
	"github.com/accrue-billing/accrue/internal/errs"
)

func zipped(t *testing.T, size int) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(bytes.Repeat([]byte("0123456789abcdef"), size/16)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRead_CompressedBodiesAreBoundedByWhatTheyUnfoldTo(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	whole := zipped(t, limit)
	for name, c := range map[string]struct {
		sent []byte
		want error
		size int
	}{
		"Small":         {zipped(t, 16), nil, 16},
		"Nothing":       {zipped(t, 0), nil, 0},
		"AsMuchAsTaken": {whole, nil, limit},
		"More":          {zipped(t, limit+16), body.ErrTooLarge, 0},
		"ABomb":         {zipped(t, 64*limit), body.ErrTooLarge, 0},
		"CutShort":      {whole[:len(whole)/2], body.ErrCorrupt, 0},
		"WithoutItsSum": {whole[:len(whole)-4], body.ErrCorrupt, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(c.sent))
			req.Header.Set("Content-Encoding", "gzip")
			got, err := body.Read(req, limit)
			if !errors.Is(err, c.want) || len(got) != c.size {
				t.Errorf("%d bytes, %v; want %d, %v", len(got), err, c.size, c.want)
			}
		})
	}
}

// Whatever keeps a body from being read is no fault of the service.
func TestRead_WhatCannotBeReadIsTheSendersFault(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		encoding string
		cause    error
		want     error
	}{
		"Chunks":          {"", errors.New("invalid byte in chunk length"), body.ErrTruncated},
		"ADeadConnection": {"", syscall.ECONNRESET, body.ErrTruncated},
		"TooSlow":         {"", os.ErrDeadlineExceeded, body.ErrSlow},
		"TooSlowlyZipped": {"gzip", os.ErrDeadlineExceeded, body.ErrSlow},
		"ChunksOfZipped":  {"gzip", errors.New("invalid byte in chunk length"), body.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int64{-1, 100} {
				req := post(t, io.MultiReader(bytes.NewReader(zipped(t, 1<<10)[:10]), iotest.ErrReader(c.cause)), size)
				req.Header.Set("Content-Encoding", c.encoding)
				if _, err := body.Read(req, 1<<20); !errors.Is(err, c.want) {
					t.Errorf("of %d bytes: %v, want %v", size, err, c.want)
				}
			}
		})
	}
}

// What a zstd frame is skipped for says nothing of the one behind it.
func TestRead_FramesToBeSkipped(t *testing.T) {
	t.Parallel()
	var sent bytes.Buffer
	sent.WriteString("\x50\x2a\x4d\x18\x04\x00\x00\x00skip")
	z, err := zstd.NewWriter(&sent, zstd.WithWindowSize(2<<20))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // with two blocks, so that the frame says what window it has
		_, _ = z.Write([]byte("0123456789"))
		_ = z.Flush()
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	req := post(t, &sent, int64(sent.Len()))
	req.Header.Set("Content-Encoding", "zstd")
	if got, err := body.Read(req, 1<<20); err != nil || len(got) != 20 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// frame is a zstd frame of that many blocks of that size, each a byte repeated, and says that it wants a window of 8 MiB.
func frame(blocks, size int) []byte {
	out := []byte("\x28\xb5\x2f\xfd\x00\x68")
	for i := range blocks {
		head := size<<3 | 1<<1 // of a block that is one byte, repeated
		if i == blocks-1 {
			head |= 1
		}
		out = append(out, byte(head), byte(head>>8), byte(head>>16), 'x')
	}
	return out
}

func TestRead_SmallZstdBodiesAreBoundedByWhatTheyUnfoldTo(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(bytes.Repeat([]byte("abcdefghi"), limit)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		sent []byte
		want error
		size int
	}{
		"AsMuchAsTaken":       {frame(1, limit), nil, limit},
		"InParts":             {frame(4, limit/4), nil, limit},
		"InFrames":            {append(frame(1, limit/2), frame(1, limit/2)...), nil, limit},
		"More":                {frame(2, limit/2+1), body.ErrTooLarge, 0},
		"MoreInFrames":        {append(frame(1, limit), frame(1, 1)...), body.ErrTooLarge, 0},
		"ABomb":               {frame(1000, 128<<10), body.ErrTooLarge, 0},
		"ABombThatIsNoRepeat": {packed.Bytes(), body.ErrTooLarge, 0},
		"CutShort":            {frame(2, 1000)[:12], body.ErrCorrupt, 0},
		"Nothing":             {nil, nil, 0},
		"NoFrame":             {[]byte("{}"), body.ErrCorrupt, 0},
		"AWindowOf16MiB":      {append([]byte("\x28\xb5\x2f\xfd\x00\x70"), frame(1, 1)[6:]...), body.ErrWindow, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int64{-1, int64(len(c.sent))} {
				req := post(t, bytes.NewReader(c.sent), size)
				req.Header.Set("Content-Encoding", "zstd")
				got, err := body.Read(req, limit)
				if !errors.Is(err, c.want) || len(got) != c.size && err == nil {
					t.Errorf("of %d bytes: %d bytes, %v; want %d, %v", size, len(got), err, c.size, c.want)
				}
			}
		})
	}
}

// Anybody may send a small body: one that asks for a window of 8 MiB must not get it.
//
//nolint:paralleltest // it looks at the memory of the process
func TestRead_ASmallZstdBodyTakesLittleMemory(t *testing.T) {
	const times = 10
	sent := frame(2, 1000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		req := post(t, bytes.NewReader(sent), -1)
		req.Header.Set("Content-Encoding", "zstd")
		if got, err := body.Read(req, 64<<10); err != nil || len(got) != 2000 {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / times; n > 1<<20 {
		t.Errorf("%d bytes", n)
	}
}

// FuzzRead: no body is more than what is taken, and whatever is wrong with one is its sender's fault.
func FuzzRead(f *testing.F) {
	f.Add(uint8(0), []byte("{}"))
	f.Add(uint8(1), []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\x01\x02\x00\xfd\xff{}\x90\x9b\x1b\x3c\x02\x00\x00\x00"))
	f.Add(uint8(2), []byte("\x28\xb5\x2f\xfd\x04\x00\x11\x00\x00{}\x8b\x4e\xb0\xd2"))
	f.Fuzz(func(t *testing.T, encoding uint8, sent []byte) {
		const limit = 64 << 10
		for _, size := range []int64{-1, int64(len(sent))} {
			req := post(t, bytes.NewReader(sent), size)
			req.Header.Set("Content-Encoding", []string{"", "gzip", "zstd"}[encoding%3])
			got, err := body.Read(req, limit)
			if len(got) > limit || (err != nil && errs.KindOf(err) == errs.Internal) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}
	})
}
