package body_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/accrue-billing/accrue/api/body"
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
