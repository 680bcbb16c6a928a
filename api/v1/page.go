package v1

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/cursor"
	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/page"
)

// Page is one page of a list.
type Page[T any] struct {
	Data       []T     `json:"data" validate:"required"`
	HasMore    bool    `json:"has_more" validate:"required"`                            // whether more follows this page
	NextCursor *string `json:"next_cursor" validate:"required" extensions:"x-nullable"` // send it as cursor to read on; null on the last page
} //@name Page

// Lists reads and writes the cursors of lists. PublicURL makes the links absolute.
type Lists struct {
	Cursors   *cursor.Codec
	PublicURL string
}

// paged are the query's parameters of a list: the page's, and its filters.
func paged(filters ...string) []string { return append([]string{"limit", "cursor"}, filters...) }

// request reads limit and cursor from the query, and returns the query with its filters.
func (l Lists) request(c echo.Context) (r page.Request, q url.Values, err error) {
	r.Limit, q = page.DefaultLimit, middleware.Query(c)
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > page.MaxLimit {
			return r, nil, errs.InvalidField("#/limit", "out_of_range", "must be a whole number from 1 to %d", page.MaxLimit)
		}
		r.Limit = n
	}
	if s := q.Get("cursor"); s != "" {
		if r.After, err = l.Cursors.Decode(binding(c, q), s); err != nil {
			return r, nil, err
		}
	}
	return r, q, nil
}

// list answers with a page, its cursor and its links.
func list[D, T any](c echo.Context, l Lists, p page.Page[D], convert func(D) T) error {
	out := Page[T]{Data: make([]T, len(p.Data)), HasMore: p.Next != ""}
	for i, d := range p.Data {
		out.Data[i] = convert(d)
	}
	q := middleware.Query(c)
	b := binding(c, q)
	links := []string{l.link(c, q, "", "first")}
	if p.Next != "" {
		next := l.Cursors.Encode(b, p.Next)
		out.NextCursor = &next
		links = append(links, l.link(c, q, next, "next"))
	}
	c.Response().Header().Set("Link", strings.Join(links, ", "))
	return c.JSON(http.StatusOK, out)
}

// listOf answers with a page of a list without filters that belongs to the request's account.
func listOf[D, T any](c echo.Context, l Lists, convert func(D) T, read func(context.Context, account.ID, page.Request) (page.Page[D], error)) error {
	r, _, err := l.request(c)
	if err != nil {
		return err
	}
	p, err := read(c.Request().Context(), middleware.AccountIfAny(c), r)
	if err != nil {
		return err
	}
	return list(c, l, p, convert)
}

func (l Lists) link(c echo.Context, q url.Values, cursor, rel string) string {
	target := url.Values{}
	for k, v := range q {
		if k != "cursor" {
			target[k] = v
		}
	}
	if cursor != "" {
		target.Set("cursor", cursor)
	}
	u := l.PublicURL + c.Request().URL.EscapedPath()
	if len(target) > 0 {
		u += "?" + target.Encode()
	}
	return "<" + u + `>; rel="` + rel + `"`
}

// binding is what the cursors of this request's list are bound to.
func binding(c echo.Context, q url.Values) cursor.List {
	filter := url.Values{}
	for k, v := range q {
		if k != "cursor" && k != "limit" {
			filter[k] = v
		}
	}
	return cursor.List{
		Account: middleware.AccountIfAny(c), Route: c.Path(), Path: c.Request().URL.EscapedPath(), Filter: filter,
	}
}
