package postgres

import (
	"context"
	"encoding/json"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/inquiry"
	"github.com/accrue-billing/accrue/internal/page"
)

type inquiryRow struct {
	AccountID account.ID `gorm:"primaryKey"`
	ID        inquiry.ID `gorm:"primaryKey"`
	Status    string
	Name      string
	Email     string
	Company   string
	Message   string
	Snapshot  []byte `gorm:"type:jsonb"`
	Note      string
	CreatedAt time.Time `gorm:"autoCreateTime:false"`
	UpdatedAt time.Time `gorm:"autoUpdateTime:false"`
	Version   int64
}

func (inquiryRow) TableName() string { return "sales_inquiries" }

func toInquiryRow(i inquiry.Inquiry) inquiryRow {
	if i.Snapshot == nil {
		i.Snapshot = json.RawMessage(`{}`)
	}
	return inquiryRow{
		i.Account, i.ID, string(i.Status), i.Name, i.Email, i.Company, i.Message, i.Snapshot, i.Note, i.CreatedAt, i.UpdatedAt, i.Version,
	}
}

func (r inquiryRow) inquiry() inquiry.Inquiry {
	return inquiry.Inquiry{
		ID: r.ID, Account: r.AccountID, Status: inquiry.Status(r.Status), Name: r.Name, Email: r.Email, Company: r.Company, Message: r.Message,
		Snapshot: r.Snapshot, Note: r.Note, CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), Version: r.Version,
	}
}

type inquiryStore stores

var _ inquiry.Store = inquiryStore{}

func (s inquiryStore) Create(ctx context.Context, i inquiry.Inquiry) (err error) {
	defer errs.Wrap(&err, "create inquiry %s", i.ID)
	row := toInquiryRow(i)
	return translate(s.db.WithContext(ctx).Create(&row).Error)
}

func (s inquiryStore) Get(ctx context.Context, a account.ID, id inquiry.ID) (_ inquiry.Inquiry, err error) {
	defer errs.Wrap(&err, "inquiry %s of %s", id, a)
	row, err := take[inquiryRow](stores(s).of(ctx, a).Where("id = ?", id), inquiry.ErrNotFound)
	return row.inquiry(), err
}

func inquiryPosition(i inquiry.Inquiry) string { return i.ID.String() }

func (s inquiryStore) List(ctx context.Context, a account.ID, r page.Request) (_ page.Page[inquiry.Inquiry], err error) {
	defer errs.Wrap(&err, "inquiries of %s", a)
	list, err := find(newest[inquiry.Inquiry](stores(s).of(ctx, a), r), inquiryRow.inquiry)
	return page.Cut(list, r.Limit, inquiryPosition), err
}

func (s inquiryStore) All(ctx context.Context, a account.ID, status inquiry.Status, r page.Request) (_ page.Page[inquiry.Inquiry], err error) {
	defer errs.Wrap(&err, "inquiries")
	q := newest[inquiry.Inquiry](stores(s).ofAny(ctx, a), r)
	if status != "" {
		q = q.Where("status = ?", string(status))
	}
	list, err := find(q, inquiryRow.inquiry)
	return page.Cut(list, r.Limit, inquiryPosition), err
}

func (s inquiryStore) Save(ctx context.Context, i *inquiry.Inquiry) (err error) {
	defer errs.Wrap(&err, "save inquiry %s", i.ID)
	row := toInquiryRow(*i)
	row.Version++
	// What was asked, and the usage that it stood on, stay as they were sent.
	err = changed(stores(s).of(ctx, i.Account).Model(&inquiryRow{}).Where("id = ? AND version = ?", i.ID, i.Version).
		Select("status", "note", "updated_at", "version").Updates(&row), account.ErrStale)
	if err == nil {
		i.Version = row.Version
	}
	return err
}
