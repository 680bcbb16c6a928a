package sandbox

import (
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"net/url"

	"github.com/accrue-billing/accrue/pkg/money"
)

//go:embed pages/*.html
var pageFiles embed.FS

var pages = template.Must(template.ParseFS(pageFiles, "pages/*.html"))

// pageRoutes are what the customer's browser sees, on an origin that is not the service's.
func (s *Server) pageRoutes() {
	s.mux.HandleFunc("GET /card/{ticket}", s.cardPage)
	s.mux.HandleFunc("POST /card/{ticket}", s.cardEntered)
	s.mux.HandleFunc("GET /3ds/{ticket}", s.authPage)
	s.mux.HandleFunc("POST /3ds/{ticket}", s.authDecided)
}

// show writes a page. Its scripts and styles carry a nonce, so that nothing else on it runs; formTo is
// the one origin beside ours to which a form may lead.
func (s *Server) show(w http.ResponseWriter, status int, page, formTo string, data map[string]any) {
	nonce := rand.Text()
	data["Nonce"] = nonce
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-"+nonce+"'; style-src 'nonce-"+nonce+
		"'; connect-src 'self'; form-action 'self'"+formTo+"; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	w.WriteHeader(status)
	if err := pages.ExecuteTemplate(w, page, data); err != nil {
		s.cfg.Logger.Debug("sandbox: page", "page", page, "error", err) // the browser is gone
	}
}

func (s *Server) gone(w http.ResponseWriter) {
	s.show(w, http.StatusNotFound, "gone.html", "", map[string]any{})
}

func (s *Server) cardPage(w http.ResponseWriter, r *http.Request) {
	in, err := s.newCall(r)
	if err != nil {
		fail(w, err)
		return
	}
	var su setup
	var ok bool
	if err := s.store.view(func(st *state) { su, ok = st.setups[st.tickets[r.PathValue("ticket")]] }); err != nil {
		fail(w, err)
		return
	}
	if su = su.expired(in.now); !ok || su.PageTicket != r.PathValue("ticket") || su.Status != statusRequiresMethod {
		s.gone(w)
		return
	}
	s.show(w, http.StatusOK, "card.html", "", map[string]any{"Numbers": testNumbers, "ReturnURL": su.ReturnURL})
}

// cardEntered takes a token from the card page, and nothing else: the page has turned the number into
// it. A body that holds anything but a known token is refused unread and unlogged.
func (s *Server) cardEntered(w http.ResponseWriter, r *http.Request) {
	in, err := s.newCall(r)
	if err != nil {
		fail(w, err)
		return
	}
	var body struct {
		Token string `json:"token"`
	}
	if r.Header.Get("Content-Type") != "application/json" || in.decode(&body) != nil || !known(body.Token) {
		fail(w, &apiError{422, codeForeignToken, "only a token of the sandbox is taken"})
		return
	}
	var su setup
	err = s.store.update(func(st *state, c *change) error {
		found, ok := st.setups[st.tickets[r.PathValue("ticket")]]
		if !ok || found.PageTicket != r.PathValue("ticket") {
			return notFound("setup")
		}
		su, err = enterCard(st, c, in, found, body.Token)
		return err
	})
	if err != nil {
		fail(w, err)
		return
	}
	s.nudge()
	answer := map[string]string{"status": su.Status}
	switch {
	case su.NextAction != nil:
		answer["url"] = su.NextAction.URL
	case su.Status == statusSucceeded:
		answer["url"] = backTo(su.ReturnURL, "setup", su.ID, su.Status)
	default:
		answer["decline"] = su.DeclineCode
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // the browser is gone
}

func known(token string) bool {
	_, ok := behaviours[token]
	return ok
}

// waiting is a setup or a charge that waits for the customer at the 3-D Secure page.
type waiting struct {
	setup  *setup
	charge *charge
}

func (x waiting) returnURL() string {
	if x.setup != nil {
		return x.setup.ReturnURL
	}
	return x.charge.ReturnURL
}

func waitingFor(st *state, ticket string, in *call) (waiting, bool) {
	id := st.tickets[ticket]
	if su, ok := st.setups[id]; ok && su.AuthTicket == ticket && su.expired(in.now).Status == statusRequiresAction {
		return waiting{setup: &su}, true
	}
	if ch, ok := st.charges[id]; ok && ch.AuthTicket == ticket && ch.Status == statusRequiresAction {
		return waiting{charge: &ch}, true
	}
	return waiting{}, false
}

func (s *Server) authPage(w http.ResponseWriter, r *http.Request) {
	in, err := s.newCall(r)
	if err != nil {
		fail(w, err)
		return
	}
	var x waiting
	var ok bool
	if err := s.store.view(func(st *state) { x, ok = waitingFor(st, r.PathValue("ticket"), in) }); err != nil {
		fail(w, err)
		return
	}
	if !ok {
		s.gone(w)
		return
	}
	data := map[string]any{}
	if x.charge != nil {
		data["Amount"] = money.New(x.charge.Amount, money.Currency(x.charge.Currency)).String()
	}
	// A browser holds the redirect that answers a form to form-action too.
	formTo := ""
	if u, err := url.Parse(x.returnURL()); err == nil && u.Host != "" {
		formTo = " " + u.Scheme + "://" + u.Host
	}
	s.show(w, http.StatusOK, "auth.html", formTo, data)
}

func (s *Server) authDecided(w http.ResponseWriter, r *http.Request) {
	in, err := s.newCall(r)
	if err != nil {
		fail(w, err)
		return
	}
	form, err := url.ParseQuery(string(in.body))
	decision := form.Get("decision")
	if err != nil || (decision != "approve" && decision != "reject") {
		fail(w, badRequest("decision is approve or reject"))
		return
	}
	var to string
	err = s.store.update(func(st *state, c *change) error {
		x, ok := waitingFor(st, r.PathValue("ticket"), in)
		switch {
		case !ok:
			return notFound("authentication")
		case x.setup != nil:
			su := authenticateSetup(st, c, in, *x.setup, decision == "approve")
			to = backTo(su.ReturnURL, "setup", su.ID, su.Status)
		default:
			ch := authenticateCharge(st, c, in, *x.charge, decision == "approve")
			to = backTo(ch.ReturnURL, "charge", ch.ID, ch.Status)
		}
		return nil
	})
	if e, ok := errors.AsType[*apiError](err); ok && e.Status == http.StatusNotFound {
		s.gone(w)
		return
	}
	if err != nil {
		fail(w, err)
		return
	}
	s.nudge()
	if to == "" {
		s.show(w, http.StatusOK, "done.html", "", map[string]any{})
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// backTo returns the return URL with what happened added to its query, or nothing where there is none.
// It is a hint for the page, which asks the service for the truth.
func backTo(returnURL, kind, id, status string) string {
	u, err := url.Parse(returnURL)
	if err != nil || u.Host == "" {
		return ""
	}
	q := u.Query()
	q.Set(kind, id)
	q.Set("outcome", status)
	u.RawQuery = q.Encode()
	return u.String()
}
