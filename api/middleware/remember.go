package middleware

import (
	"bytes"
	"hash/maphash"
	"net/http"
	"sync/atomic"
	"time"

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

// Memory holds answers by what was asked, each with the account's revision that it is true of. It is safe
// for concurrent use.
type Memory struct {
	revisions account.Revisions
	answers   *lru.Cache[question, remembered]
	seed      maphash.Seed
	forgotten [4096]atomic.Uint32 // by account: how often it was forgotten, or another with the same hash
}

var contentTypeJSON = []string{echo.MIMEApplicationJSON} // shared by all answers, never changed

type question struct {
	account account.ID
	path    string // of one route: nothing else is asked there
	query   string
}

type remembered struct {
	revision  account.Revision
	known     time.Time // when the account last was known to have it
	forgotten uint32    // then
	body      []byte
}

// NewMemory returns a memory of answers that goes by revisions. All chains of a process share one.
func NewMemory(revisions account.Revisions) *Memory {
	answers, err := lru.New[question, remembered](maxRemembered)
	if err != nil {
		panic(err) // the size is not positive
	}
	return &Memory{revisions: revisions, answers: answers, seed: maphash.MakeSeed()}
}

// Forget says that accounts have changed: no answer about them is given again without asking for their
// revisions.
func (m *Memory) Forget(accounts ...account.ID) {
	for _, a := range accounts {
		m.timesForgotten(a).Add(1)
	}
}

// notStrict says what is said by leaving it out: an answer may be of some age.
const notStrict = "strict=false"

func (m *Memory) timesForgotten(a account.ID) *atomic.Uint32 {
	return &m.forgotten[maphash.Comparable(m.seed, a)%uint64(len(m.forgotten))]
}

// remember answers from memory as long as the account has the revision that the answer was made at. The
// revision is asked for each time and before the handler reads anything, so every answer is as of now:
// a caller sees its own writes, and every other replica's. Where the route lets an answer be of some age,
// the revision is not asked for meanwhile, unless the account is known to have changed.
func (ch *Chain) remember(r route.Route) echo.MiddlewareFunc {
	m := ch.cfg.Memory
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		if !r.OfState || m == nil {
			return next
		}
		return func(c echo.Context) error {
			req, now, forgotten := c.Request(), ch.now(c), m.timesForgotten(Account(c)).Load()
			q := question{Account(c), req.URL.Path, req.URL.RawQuery}
			if r.MayAge > 0 && q.query == notStrict {
				q.query = ""
			}
			last, ok := m.answers.Get(q)
			if age := now.Sub(last.known); ok && q.query == "" && age >= 0 && age < r.MayAge && last.forgotten == forgotten {
				return last.answer(c)
			}
			revision, err := m.revisions.Revision(req.Context(), Account(c))
			if err != nil {
				return err
			}
			if ok && last.revision == revision {
				if r.MayAge > 0 {
					m.answers.Add(q, remembered{revision, now, forgotten, last.body})
				}
				return last.answer(c)
			}
			copied := &copier{ResponseWriter: c.Response().Writer}
			c.Response().Writer = copied
			defer func() { c.Response().Writer = copied.ResponseWriter }()
			if err := next(c); err != nil {
				return err
			}
			if c.Response().Status == http.StatusOK && !copied.more && req.Method == http.MethodGet {
				m.answers.Add(q, remembered{revision, now, forgotten, copied.body.Bytes()})
			}
			return nil
		}
	}
}

func (r remembered) answer(c echo.Context) error {
	c.Response().Header()[echo.HeaderContentType] = contentTypeJSON
	c.Response().WriteHeader(http.StatusOK)
	_, err := c.Response().Write(r.body)
	return err
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
