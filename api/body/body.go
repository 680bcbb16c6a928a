// Package body takes in a request's body: once, whole, bounded and decompressed.
//
// Everything behind it works on the same bytes: the card tripwire, the fingerprint, the decoder.
package body

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/internal/errs"
)

// AcceptEncoding is what may be sent, for the header of that name in a 415.
const AcceptEncoding = "gzip, zstd"

const (
	maxWindow = 8 << 20   // bounds the memory that a zstd frame can ask for
	maxBlock  = 128 << 10 // is what one block of a zstd frame unfolds to, says RFC 8878
)

// Errors of reading a body.
var (
	ErrTooLarge  = errs.New(errs.TooLarge, "body_too_large", "The body is larger than this operation takes.")
	ErrEncoding  = errs.New(errs.UnsupportedMedia, "unsupported_encoding", "The content encoding is not spoken here; send gzip, zstd or none, and one only.")
	ErrCorrupt   = errs.New(errs.Malformed, "corrupt_encoding", "The body is not what its content encoding says.")
	ErrWindow    = errs.New(errs.TooLarge, "window_too_large", "A zstd frame asks for a larger window than is taken: 8 MiB, or 256 KiB where the first frame has no more. Compress without --long, in one frame.")
	ErrTruncated = errs.New(errs.Malformed, "truncated_body", "The body ended before its stated length, or its chunks are not what HTTP makes them.")
)

// Read returns the body of a request, decompressed, of at most limit bytes. The compressed body is
// bound by the same limit, and decompression stops at it, so a bomb costs no more than an honest body.
func Read(req *http.Request, limit int64) ([]byte, error) {
	return read(req, limit, func(int64) error { return nil })
}

// read calls room with the number of bytes that the body may come to before it reads more than Small of it.
func read(req *http.Request, limit int64, room func(int64) error) ([]byte, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return nil, nil
	}
	if req.ContentLength > limit {
		return nil, ErrTooLarge.With("limit_bytes", limit)
	}
	encodings := strings.Join(req.Header.Values(echo.HeaderContentEncoding), ",") // several headers are one list
	switch strings.ToLower(strings.TrimSpace(encodings)) {
	case "", "identity":
		data, err := readAll(req.Body, req.ContentLength, limit, room)
		return data, explain(err, ErrTruncated)
	case "gzip", "x-gzip": // the same, says RFC 9110
		z, err := gzip.NewReader(io.LimitReader(req.Body, limit+1))
		if err != nil {
			return nil, explain(err, ErrCorrupt)
		}
		return decompressed(z, limit, room)
	case "zstd":
		if limit <= Small {
			data, err := readAll(req.Body, req.ContentLength, limit, room)
			if err != nil {
				return nil, explain(err, ErrCorrupt)
			}
			return unfold(data, limit)
		}
		raw, window := bufio.NewReaderSize(io.LimitReader(req.Body, limit+1), 4<<10), uint64(Small)
		if unpacksInMore(raw) { // its decoder takes much memory before the first byte
			if err := room(max(limit, maxWindow)); err != nil {
				return nil, err
			}
			room, window = func(int64) error { return nil }, maxWindow
		}
		// No later frame may have a window that the first one did not ask room for.
		z, err := zstd.NewReader(raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window), zstd.WithDecoderMaxMemory(uint64(limit)+maxWindow))
		if err != nil {
			return nil, ErrCorrupt.Because(err)
		}
		defer z.Close()
		return decompressed(z, limit, room)
	default:
		return nil, ErrEncoding
	}
}

// unfold decompresses zstd in the memory of what comes out of it. Read as a stream, a frame of a few bytes takes that of the
// window that it asks for, before its first byte is there.
func unfold(data []byte, limit int64) ([]byte, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, ErrCorrupt.Because(err)
	}
	defer z.Close()
	// A block more than is taken: it is the limit that a body passes first, whatever the decoder calls it.
	out, err := z.DecodeAll(data, make([]byte, 0, limit+maxBlock))
	if int64(len(out)) > limit {
		return nil, ErrTooLarge.With("limit_bytes", limit)
	}
	return out, unpacking(err, limit)
}

// explain says what was wrong with a body that could not be read, which is its sender's fault or the network's.
func explain(err error, otherwise *errs.Error) error {
	switch {
	case err == nil, errs.KindOf(err) != errs.Internal:
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrSlow.Because(err)
	default:
		return otherwise.Because(err)
	}
}

// unpacksInMore reports whether the window of a zstd frame is larger than a small body, or not known: of what comes
// behind a frame that is skipped.
func unpacksInMore(r *bufio.Reader) bool {
	begin, _ := r.Peek(zstd.HeaderMaxSize)
	var h zstd.Header
	return h.Decode(begin) == nil && (h.Skippable || h.WindowSize > Small)
}

func decompressed(r io.Reader, limit int64, room func(int64) error) ([]byte, error) {
	data, err := readAll(r, -1, limit, room)
	return data, unpacking(err, limit)
}

// unpacking says what was wrong with a body that could not be decompressed.
func unpacking(err error, limit int64) error {
	switch {
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return ErrWindow.Because(err)
	case errors.Is(err, zstd.ErrDecoderSizeExceeded): // a frame says so before it unfolds
		return ErrTooLarge.With("limit_bytes", limit).Because(err)
	}
	return explain(err, ErrCorrupt)
}

func readAll(r io.Reader, size, limit int64, room func(int64) error) ([]byte, error) {
	if size < 0 {
		return readParts(r, limit, room)
	}
	if size > Small {
		if err := room(size); err != nil {
			return nil, err
		}
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	return data, nil
}

// readParts reads a body of unknown length. A buffer that doubles would have taken four times the limit
// by the time that a bomb is known for one; parts take the limit once.
func readParts(r io.Reader, limit int64, room func(int64) error) ([]byte, error) {
	var parts [][]byte
	for total := int64(0); ; {
		if len(parts) == 1 {
			if err := room(limit); err != nil {
				return nil, err
			}
		}
		part := make([]byte, min(Small, limit+1-total))
		n, err := io.ReadFull(r, part)
		parts, total = append(parts, part[:n]), total+int64(n)
		switch {
		case total > limit:
			return nil, ErrTooLarge.With("limit_bytes", limit)
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && n < len(part) && atEnd(r):
			return join(parts), nil
		case err != nil:
			return nil, fmt.Errorf("read body: %w", err)
		}
	}
}

// join makes one of the parts. Most bodies are no more than one.
func join(parts [][]byte) []byte {
	if len(parts) == 1 {
		return parts[0]
	}
	return slices.Concat(parts...)
}

// atEnd reports whether a reader is at its end, and not cut short: ReadFull says the same of both.
func atEnd(r io.Reader) bool {
	n, err := r.Read(make([]byte, 1))
	return n == 0 && errors.Is(err, io.EOF)
}

// taken is a body that has been read, and can be read again by code that expects a reader.
type taken struct {
	bytes.Reader
	data []byte
}

// Close implements io.Closer.
func (*taken) Close() error { return nil }

// Set keeps the body for those who come later.
func Set(c echo.Context, data []byte) {
	t := &taken{data: data}
	t.Reset(data)
	req := c.Request()
	req.Body, req.ContentLength = t, int64(len(data))
	req.Header.Del(echo.HeaderContentEncoding)
}

// Bytes returns the body that was taken in. It must not be changed.
func Bytes(c echo.Context) []byte {
	if t, ok := c.Request().Body.(*taken); ok {
		return t.data
	}
	return nil
}

// MediaType returns the media type of a Content-Type header and its parameters.
func MediaType(header string) (media string, params map[string]string, err error) {
	if header == echo.MIMEApplicationJSON { // as almost all are
		return header, nil, nil
	}
	return mime.ParseMediaType(header)
}
