package postgres

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm/clause"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
)

type setupRow struct {
	AccountID   account.ID      `gorm:"primaryKey"`
	ID          payment.SetupID `gorm:"primaryKey"`
	Provider    string
	ProviderRef string
	UsedBy      payment.MethodID
	CreatedAt   time.Time `gorm:"autoCreateTime:false"`
	ExpiresAt   time.Time
}

func (setupRow) TableName() string { return "payment_setups" }

type methodRow struct {
	AccountID       account.ID       `gorm:"primaryKey"`
	ID              payment.MethodID `gorm:"primaryKey"`
	Status          string
	IsDefault       bool
	Provider        string
	ProviderRef     *string
	Source          string
	CustomerRef     string
	ReturnURL       string
	SetupRef        string
	Brand           string
	LastFour        string
	ExpMonth        *int
	ExpYear         *int
	Country         string
	Fingerprint     string
	Funding         string
	Name            string
	Email           string
	Address         []byte `gorm:"type:jsonb"`
	NextAction      []byte `gorm:"type:jsonb"`
	Failure         []byte `gorm:"type:jsonb"`
	CheckAt         *time.Time
	ExpiryNoticedAt *time.Time
	CreatedAt       time.Time `gorm:"autoCreateTime:false"`
	UpdatedAt       time.Time `gorm:"autoUpdateTime:false"`
	Version         int64
}

func (methodRow) TableName() string { return "payment_methods" }

var (
	methods       = tableOf[methodRow]()
	methodByID    = methods.read("", "account_id", "id")
	defaultMethod = methods.read("AND is_default", "account_id").beforehand()
	saveMethod    = methods.update([]string{"account_id", "id", "version"}, methods.but("account_id", "id", "provider", "return_url", "created_at")...).
			mustFind(account.ErrStale)
)

func toMethodRow(m payment.Method) (row methodRow, err error) {
	row = methodRow{
		AccountID: m.Account, ID: m.ID, Status: string(m.Status), IsDefault: m.Default, Provider: m.Provider, ProviderRef: textOrNil(m.ProviderRef),
		Source: m.Source, CustomerRef: m.CustomerRef, ReturnURL: m.ReturnURL, SetupRef: m.SetupRef, Brand: m.Card.Brand, LastFour: m.Card.Last4, ExpMonth: numberOrNil(m.Card.ExpMonth),
		ExpYear: numberOrNil(m.Card.ExpYear), Country: m.Card.Country, Fingerprint: m.Card.Fingerprint, Funding: m.Card.Funding,
		Name: m.Billing.Name, Email: m.Billing.Email, CheckAt: timeOrNil(m.CheckAt), ExpiryNoticedAt: timeOrNil(m.NoticedAt),
		CreatedAt: m.CreatedAt, UpdatedAt: m.UpdatedAt, Version: m.Version,
	}
	if row.Address, err = json.Marshal(cardAddress(m.Billing.Address)); err != nil {
		return row, err
	}
	if row.NextAction, err = jsonOrNil(toStoredAction(m.NextAction)); err != nil {
		return row, err
	}
	row.Failure, err = jsonOrNil(m.Failure)
	return row, err
}

func (r methodRow) method() (m payment.Method, err error) {
	var address cardAddress
	if err := json.Unmarshal(r.Address, &address); err != nil {
		return m, err
	}
	m = payment.Method{
		ID: r.ID, Account: r.AccountID, Status: payment.MethodStatus(r.Status), Default: r.IsDefault, Provider: r.Provider,
		ProviderRef: textOf(r.ProviderRef), Source: r.Source, CustomerRef: r.CustomerRef, ReturnURL: r.ReturnURL, SetupRef: r.SetupRef,
		Card: payment.Card{
			Brand: r.Brand, Last4: r.LastFour, ExpMonth: numberOf(r.ExpMonth), ExpYear: numberOf(r.ExpYear), Country: r.Country,
			Fingerprint: r.Fingerprint, Funding: r.Funding,
		},
		Billing: payment.Billing{Name: r.Name, Email: r.Email, Address: payment.Address(address)},
		CheckAt: timeOf(r.CheckAt), NoticedAt: timeOf(r.ExpiryNoticedAt), CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), Version: r.Version,
	}
	if m.NextAction, err = actionOf(r.NextAction); err != nil {
		return m, err
	}
	m.Failure, err = jsonOf[payment.Failure](r.Failure)
	return m, err
}

// cardAddress is a payment.Address with names for JSON.
type cardAddress struct {
	Line1      string `json:"line1,omitempty"`
	Line2      string `json:"line2,omitempty"`
	City       string `json:"city,omitempty"`
	State      string `json:"state,omitempty"`
	PostalCode string `json:"postal_code,omitempty"`
	Country    string `json:"country,omitempty"`
}

// numberOrNil is NULL for 0: an intent has no card yet.
func numberOrNil(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}

func numberOf(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}

type removalRow struct {
	AccountID       account.ID        `gorm:"primaryKey"`
	ID              payment.RemovalID `gorm:"primaryKey"`
	PaymentMethodID payment.MethodID
	Kind            string
	Status          string
	Note            string
	CreatedAt       time.Time `gorm:"autoCreateTime:false"`
	ResolvedAt      *time.Time
	ResolvedBy      string
	Answer          string
}

func (removalRow) TableName() string { return "removal_requests" }

func toRemovalRow(r payment.Removal) removalRow {
	return removalRow{r.Account, r.ID, r.Method, string(r.Kind), string(r.Status), r.Note, r.CreatedAt, timeOrNil(r.ResolvedAt), r.ResolvedBy, r.Answer}
}

func (r removalRow) removal() payment.Removal {
	return payment.Removal{
		ID: r.ID, Account: r.AccountID, Method: r.PaymentMethodID, Kind: payment.RemovalKind(r.Kind), Status: payment.RemovalStatus(r.Status),
		Note: r.Note, CreatedAt: r.CreatedAt.UTC(), ResolvedAt: timeOf(r.ResolvedAt), ResolvedBy: r.ResolvedBy, Answer: r.Answer,
	}
}

// openRemovals are an account's requests that nobody has answered.
var openRemovals = tableOf[removalRow]().read("AND status = 'open' ORDER BY id", "account_id").beforehand()

type attemptRow struct {
	Fingerprint  string    `gorm:"primaryKey"`
	ID           uuid.UUID `gorm:"primaryKey"`
	At           time.Time
	Declined     bool
	DeclineClass string
}

func (attemptRow) TableName() string { return "card_attempts" }

var (
	attempts   = tableOf[attemptRow]()
	attemptsAt = attempts.read("ORDER BY at, id", "fingerprint").beforehand()
	// defaultAttempts are those at the default card of an account, or a row with its fingerprint alone.
	defaultAttempts = attempts.readAs("SELECT m.fingerprint, c.id, c.at, c.declined, c.decline_class"+
		" FROM payment_methods m LEFT JOIN card_attempts c ON c.fingerprint = m.fingerprint WHERE m.account_id = ? AND m.is_default ORDER BY c.at, c.id",
		methods.columns[methods.field("account_id")])
)

func (s paymentStore) Customer(ctx context.Context, a account.ID, provider string) (_ string, err error) {
	defer errs.Wrap(&err, "customer of %s at %s", a, provider)
	var row struct{ CustomerRef string }
	err = stores(s).of(ctx, a).Table("provider_customers").Where("provider = ?", provider).Limit(1).Scan(&row).Error
	return row.CustomerRef, translate(err)
}

func (s paymentStore) SaveCustomer(ctx context.Context, a account.ID, provider, ref string) (err error) {
	defer errs.Wrap(&err, "save customer of %s at %s", a, provider)
	return translate(s.db.WithContext(ctx).Exec(
		"INSERT INTO provider_customers (account_id, provider, customer_ref) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", a, provider, ref).Error)
}

func (s paymentStore) CreateSetup(ctx context.Context, v payment.SavedSetup) (err error) {
	defer errs.Wrap(&err, "create setup %s", v.ID)
	return translate(s.db.WithContext(ctx).Create(&setupRow{v.Account, v.ID, v.Provider, v.Ref, v.UsedBy, v.CreatedAt, v.ExpiresAt}).Error)
}

func (s paymentStore) Setup(ctx context.Context, a account.ID, ref string) (_ payment.SavedSetup, err error) {
	defer errs.Wrap(&err, "setup of %s", a)
	q := stores(s).of(ctx, a)
	if own, perr := id.Parse[payment.SavedSetup](ref); perr == nil {
		q = q.Where("id = ?", own)
	} else {
		q = q.Where("provider_ref = ?", ref)
	}
	r, err := take[setupRow](q, payment.ErrSetupNotFound)
	return payment.SavedSetup{
		ID: r.ID, Account: r.AccountID, Provider: r.Provider, Ref: r.ProviderRef, UsedBy: r.UsedBy, CreatedAt: r.CreatedAt.UTC(), ExpiresAt: r.ExpiresAt.UTC(),
	}, err
}

func (s paymentStore) UseSetup(ctx context.Context, a account.ID, v payment.SetupID, m payment.MethodID) (err error) {
	defer errs.Wrap(&err, "use setup %s of %s", v, a)
	// A card that the provider refused leaves the setup free: the customer finishes the form, or gives
	// another card to it.
	const free = `id = ? AND (used_by IS NULL OR used_by = ? OR EXISTS (SELECT FROM payment_methods m
		WHERE m.account_id = payment_setups.account_id AND m.id = payment_setups.used_by AND m.status = 'failed'))`
	res := stores(s).of(ctx, a).Model(&setupRow{}).Where(free, v, m).Update("used_by", m)
	if res.Error != nil || res.RowsAffected == 1 {
		return translate(res.Error)
	}
	if _, err := s.Setup(ctx, a, v.String()); err != nil {
		return err
	}
	return payment.ErrSetupUsed
}

func (s paymentStore) DropSetups(ctx context.Context, t time.Time, limit int) (_ int, err error) {
	defer errs.Wrap(&err, "drop setups that expired before %s", t)
	res := s.db.WithContext(ctx).Exec(`
DELETE FROM payment_setups WHERE used_by IS NULL AND (account_id, id) IN
	(SELECT account_id, id FROM payment_setups WHERE used_by IS NULL AND expires_at < ? ORDER BY expires_at LIMIT ?)`, t, limit)
	return int(res.RowsAffected), translate(res.Error)
}

func (s paymentStore) CreateMethod(ctx context.Context, m payment.Method) (err error) {
	defer errs.Wrap(&err, "create payment method %s", m.ID)
	row, err := toMethodRow(m)
	if err != nil {
		return err
	}
	return s.later(ctx, methods.insert(row))
}

func (s paymentStore) Method(ctx context.Context, a account.ID, m payment.MethodID) (_ payment.Method, err error) {
	defer errs.Wrap(&err, "payment method %s of %s", m, a)
	row, err := methodByID.of(a, m).one(ctx, s, payment.ErrMethodNotFound)
	if err != nil {
		return payment.Method{}, err
	}
	return row.method()
}

func (s paymentStore) DefaultMethod(ctx context.Context, a account.ID) (_ payment.Method, err error) {
	defer errs.Wrap(&err, "default payment method of %s", a)
	row, err := defaultMethod.of(a).one(ctx, s, payment.ErrNoMethod)
	if err != nil {
		return payment.Method{}, err
	}
	return row.method()
}

func (s paymentStore) Methods(ctx context.Context, a account.ID) (_ []payment.Method, err error) {
	defer errs.Wrap(&err, "payment methods of %s", a)
	return findEach(stores(s).of(ctx, a).Where("status NOT IN ('failed', 'removed')").Order("is_default DESC, id"), methodRow.method)
}

func (s paymentStore) SaveMethod(ctx context.Context, m *payment.Method) (err error) {
	defer errs.Wrap(&err, "save payment method %s", m.ID)
	row, err := toMethodRow(*m)
	if err != nil {
		return err
	}
	row.Version++
	if err = s.later(ctx, saveMethod.of(row, m.Account, m.ID, m.Version)); err == nil {
		m.Version = row.Version
	}
	return err
}

func (s paymentStore) MakeDefault(ctx context.Context, a account.ID, m payment.MethodID, at time.Time) (err error) {
	defer errs.Wrap(&err, "make %s the default of %s", m, a)
	set := func(v bool) map[string]any {
		return map[string]any{"is_default": v, "updated_at": at, "version": clauseRaise}
	}
	// The old one first: at no moment may there be two.
	if err := stores(s).of(ctx, a).Model(&methodRow{}).Where("is_default AND id <> ?", m).Updates(set(false)).Error; err != nil {
		return translate(err)
	}
	return changed(stores(s).of(ctx, a).Model(&methodRow{}).Where("id = ? AND status = 'active'", m).Updates(set(true)), payment.ErrMethodNotFound)
}

// A card is good through its last month.
var expiringCards = "SELECT " + namesOf(methods.columns) + ` FROM payment_methods WHERE is_default AND expiry_noticed_at IS NULL AND exp_year * 12 + exp_month < ?
	AND (exp_year * 12 + exp_month, account_id) > (?, ?)
	ORDER BY exp_year * 12 + exp_month, account_id LIMIT ?`

func (s paymentStore) Expiring(ctx context.Context, t time.Time, after payment.Method, limit int) (_ []payment.Method, err error) {
	defer errs.Wrap(&err, "cards that expire before %s", t)
	t = t.UTC()
	return findEach(stores(s).all(ctx).Raw(expiringCards, t.Year()*12+int(t.Month()),
		after.Card.ExpYear*12+after.Card.ExpMonth, after.Account.UUID(), limit), methodRow.method)
}

func (s paymentStore) CreateRemoval(ctx context.Context, r payment.Removal) (err error) {
	defer errs.Wrap(&err, "create removal request %s", r.ID)
	row := toRemovalRow(r)
	err = s.db.WithContext(ctx).Create(&row).Error
	if orphan(err) {
		return payment.ErrMethodNotFound
	}
	return taken(err, payment.ErrRemovalOpen)
}

func (s paymentStore) Removal(ctx context.Context, a account.ID, r payment.RemovalID) (_ payment.Removal, err error) {
	defer errs.Wrap(&err, "removal request %s of %s", r, a)
	row, err := take[removalRow](stores(s).of(ctx, a).Where("id = ?", r), payment.ErrRemovalNotFound)
	return row.removal(), err
}

func (s paymentStore) Removals(ctx context.Context, a account.ID, status payment.RemovalStatus, r page.Request) (_ page.Page[payment.Removal], err error) {
	defer errs.Wrap(&err, "list removal requests")
	q := newest[payment.Removal](stores(s).ofAny(ctx, a), r)
	if status != "" {
		q = q.Where("status = ?", string(status))
	}
	list, err := find(q, removalRow.removal)
	return page.Cut(list, r.Limit, func(m payment.Removal) string { return m.ID.String() }), err
}

func (s paymentStore) OpenRemovals(ctx context.Context, a account.ID) (_ []payment.Removal, err error) {
	defer errs.Wrap(&err, "open removal requests of %s", a)
	return all(ctx, s, openRemovals.of(a), func(r removalRow) (payment.Removal, error) { return r.removal(), nil })
}

func (s paymentStore) SaveRemoval(ctx context.Context, r payment.Removal) (err error) {
	defer errs.Wrap(&err, "save removal request %s", r.ID)
	row := toRemovalRow(r)
	return changed(stores(s).of(ctx, r.Account).Model(&removalRow{}).Where("id = ?", r.ID).
		Select("kind", "status", "note", "resolved_at", "resolved_by", "answer").Updates(&row), payment.ErrRemovalNotFound)
}

func (s paymentStore) AddAttempt(ctx context.Context, fingerprint string, a payment.Attempt) (err error) {
	defer errs.Wrap(&err, "count an attempt at a card")
	return s.later(ctx, attempts.insert(attemptRow{fingerprint, uuid.Must(uuid.NewV7()), a.At, a.Declined, string(a.Class)}))
}

func (s paymentStore) Attempts(ctx context.Context, fingerprint string, since time.Time) (_ []payment.Attempt, err error) {
	defer errs.Wrap(&err, "attempts at a card since %s", since)
	rows, err := attemptsAt.by(fingerprint).rows(ctx, s) // few: nobody asks a card for ever
	if err != nil {
		return nil, err
	}
	var list []payment.Attempt
	for _, r := range rows {
		if !r.At.Before(since) {
			list = append(list, payment.Attempt{At: r.At.UTC(), Declined: r.Declined, Class: payment.DeclineClass(r.DeclineClass)})
		}
	}
	return list, nil
}

func (s paymentStore) DropAttempts(ctx context.Context, t time.Time, limit int) (_ int, err error) {
	defer errs.Wrap(&err, "drop attempts at cards of before %s", t)
	res := s.db.WithContext(ctx).Exec(`
DELETE FROM card_attempts WHERE (fingerprint, id) IN (SELECT fingerprint, id FROM card_attempts WHERE id < ? AND decline_class NOT IN ? ORDER BY id LIMIT ?)`,
		firstAt(t), []string{string(payment.DeclineLost), string(payment.DeclineBarred)}, limit)
	return int(res.RowsAffected), translate(res.Error)
}

// firstAt is below every identifier that is made from t on, and above those of before, by the millisecond.
func firstAt(t time.Time) (u uuid.UUID) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(t.UnixMilli())<<16)
	copy(u[:], b[:6])
	return u
}

// clauseRaise raises a version in an update that has not read it.
var clauseRaise = clause.Expr{SQL: "version + 1"}
