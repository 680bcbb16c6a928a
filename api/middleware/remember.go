package middleware

import (
	"bytes"
	"net/http"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/account"
)

// What is remembered, at most: 16 MiB.
const (
	maxRemembered = 4096
	maxAnswer     = 4 << 10
)

// memory holds answers by what was asked, each with the account's revision that it is true of.
type memory struct {
	answers *lru.Cache[question, remembered]
}

var contentTypeJSON = []string{echo.MIMEApplicationJSON} // shared by all answers, never changed

type question struct {
	account account.ID
	route   string
	path    string // with its parameters
	query   string
}

type remembered struct {
	revision account.Revision
	body     []byte
}

func newMemory() memory {
	answers, err := lru.New[question, remembered](maxRemembered)
	if err != nil {
		panic(err) // the size is not positive
	}
	return memory{answers}
}

// remember answers from memory as long as the account has the revision that the answer was made at. The
// revision is asked for each time and before the handler reads anything, so every answer is as of now:
// a caller sees its own writes, and every other replica's.
func (ch *Chain) remember(r route.Route) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		if !r.OfState || ch.cfg.Revisions == nil {
			return next
		}
		return func(c echo.Context) error {
			req := c.Request()
			revision, err := ch.cfg.Revisions.Revision(req.Context(), Account(c))
			if err != nil {
				return err
			}
			q := question{Account(c), r.Path, req.URL.Path, req.URL.RawQuery}
			if known, ok := ch.memory.answers.Get(q); ok && known.revision == revision {
				c.Response().Header()[echo.HeaderContentType] = contentTypeJSON
				c.Response().WriteHeader(http.StatusOK)
				_, err := c.Response().Write(known.body)
				return err
			}
			copied := &copier{ResponseWriter: c.Response().Writer}
			c.Response().Writer = copied
			defer func() { c.Response().Writer = copied.ResponseWriter }()
			if err := next(c); err != nil {
				return err
			}
			if c.Response().Status == http.StatusOK && !copied.more && req.Method == http.MethodGet {
				ch.memory.answers.Add(q, remembered{revision, copied.body.Bytes()})
			}
			return nil
		}
	}
}

// copier keeps a copy of a small body on its way out.
type copier struct {
	http.ResponseWriter
	body bytes.Buffer
	more bool // than is kept
}

func (w *copier) Write(p []byte) (int, error) {
	if w.more = w.more || w.body.Len()+len(p) > maxAnswer; !w.more {
		w.body.Write(p)
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *copier) Unwrap() http.ResponseWriter { return w.ResponseWriter }
