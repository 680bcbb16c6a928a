package postgres

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/plan"
)

type meterRow struct {
	Code       string `gorm:"primaryKey"`
	Definition []byte `gorm:"type:jsonb"`
}

func (meterRow) TableName() string { return "meters" }

type planRow struct {
	Code       string `gorm:"primaryKey"`
	Position   int
	Definition []byte `gorm:"type:jsonb"`
	ArchivedAt *time.Time
}

func (planRow) TableName() string { return "plans" }

func (r planRow) plan() (plan.Plan, error) {
	var p plan.Plan
	err := json.Unmarshal(r.Definition, &p)
	p.Code, p.Position, p.Archived = plan.Code(r.Code), r.Position, r.ArchivedAt != nil
	return p, err
}

type planVersionRow struct {
	PlanCode    string `gorm:"primaryKey"`
	Number      int    `gorm:"primaryKey"`
	Definition  []byte `gorm:"type:jsonb"`
	ContentHash []byte
	PublishedAt *time.Time
	ArchivedAt  *time.Time
	CreatedAt   time.Time `gorm:"autoCreateTime:false"`
}

func (planVersionRow) TableName() string { return "plan_versions" }

var (
	planVersions = tableOf[planVersionRow]()
	planVersion  = planVersions.read("", "plan_code", "number").beforehand()
	// activeVersion is what the active subscription of an account stands for.
	activeVersion = planVersions.readAs("SELECT p."+strings.ReplaceAll(namesOf(planVersions.columns), ", ", ", p.")+
		" FROM subscriptions s JOIN plan_versions p ON p.plan_code = s.plan_code AND p.number = s.plan_version WHERE s.account_id = ? AND s.status = 'active'",
		subscriptions.columns[subscriptions.field("account_id")])
)

// definitions remembers what versions say, by their text: a version is read again and again and never changes. It is
// bounded, and safe for concurrent use.
type definitions = lru.Cache[string, plan.Version]

// maxDefinitions is how many are remembered, at a few kilobytes each.
const maxDefinitions = 256

func (s planStore) version(r planVersionRow) (v plan.Version, err error) {
	text := string(r.Definition)
	v, known := s.definitions.Get(text)
	if !known {
		if err := json.Unmarshal(r.Definition, &v); err != nil {
			return v, err
		}
		s.definitions.Add(text, v)
	}
	v.Plan, v.Number, v.Hash = plan.Code(r.PlanCode), r.Number, hex.EncodeToString(r.ContentHash)
	v.PublishedAt, v.ArchivedAt = timeOf(r.PublishedAt), timeOf(r.ArchivedAt)
	return v, nil
}

type planStore stores

var _ plan.Store = planStore{}

func (s planStore) Meters(ctx context.Context) (_ []plan.Meter, err error) {
	defer errs.Wrap(&err, "list meters")
	var rows []meterRow
	if err := s.db.WithContext(ctx).Order("code").Find(&rows).Error; err != nil {
		return nil, translate(err)
	}
	out := make([]plan.Meter, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal(row.Definition, &out[i]); err != nil {
			return nil, err
		}
		out[i].Code = plan.MeterCode(row.Code)
	}
	return out, nil
}

func (s planStore) PutMeters(ctx context.Context, meters []plan.Meter) (err error) {
	defer errs.Wrap(&err, "put meters")
	known, err := s.Meters(ctx)
	if err != nil {
		return err
	}
	byCode := make(map[plan.MeterCode]plan.Meter, len(known))
	for _, m := range known {
		byCode[m.Code] = m
	}
	for _, m := range meters {
		if old, ok := byCode[m.Code]; ok && !plan.SameMeasure(old, m) {
			return plan.ErrMeterChanged.With("meter", m.Code)
		}
	}
	for _, m := range meters {
		definition, err := json.Marshal(m)
		if err != nil {
			return err
		}
		row := meterRow{Code: string(m.Code), Definition: definition}
		if err := s.db.WithContext(ctx).Clauses(onConflictUpdate([]string{"code"}, "definition")).Create(&row).Error; err != nil {
			return translate(err)
		}
	}
	return nil
}

func (s planStore) Plans(ctx context.Context) (_ []plan.Plan, err error) {
	defer errs.Wrap(&err, "list plans")
	var rows []planRow
	if err := s.db.WithContext(ctx).Order("position, code").Find(&rows).Error; err != nil {
		return nil, translate(err)
	}
	out := make([]plan.Plan, len(rows))
	for i, row := range rows {
		if out[i], err = row.plan(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s planStore) Plan(ctx context.Context, code plan.Code) (_ plan.Plan, err error) {
	defer errs.Wrap(&err, "get plan %s", code)
	var row planRow
	if err := s.db.WithContext(ctx).Where("code = ?", string(code)).Take(&row).Error; err != nil {
		return plan.Plan{}, notFound(err, plan.ErrNotFound)
	}
	return row.plan()
}

func (s planStore) Current(ctx context.Context, code plan.Code) (_ plan.Version, err error) {
	defer errs.Wrap(&err, "current version of plan %s", code)
	var row planVersionRow
	err = s.db.WithContext(ctx).Where("plan_code = ? AND published_at IS NOT NULL AND archived_at IS NULL", string(code)).
		Order("number DESC").Take(&row).Error
	if err == nil {
		return s.version(row)
	}
	if err = notFound(err, plan.ErrVersionNotFound); errs.KindOf(err) != errs.NotFound {
		return plan.Version{}, err
	}
	if _, missing := s.Plan(ctx, code); missing != nil {
		return plan.Version{}, missing
	}
	return plan.Version{}, err
}

func (s planStore) Version(ctx context.Context, code plan.Code, number int) (_ plan.Version, err error) {
	defer errs.Wrap(&err, "version %d of plan %s", number, code)
	row, err := planVersion.by(string(code), number).one(ctx, s, plan.ErrVersionNotFound)
	if err != nil {
		return plan.Version{}, err
	}
	return s.version(row)
}

func (s planStore) Versions(ctx context.Context, code plan.Code) (_ []plan.Version, err error) {
	defer errs.Wrap(&err, "versions of plan %s", code)
	if _, err := s.Plan(ctx, code); err != nil {
		return nil, err
	}
	var rows []planVersionRow
	if err := s.db.WithContext(ctx).Where("plan_code = ?", string(code)).Order("number DESC").Find(&rows).Error; err != nil {
		return nil, translate(err)
	}
	out := make([]plan.Version, len(rows))
	for i, row := range rows {
		if out[i], err = s.version(row); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s planStore) Publish(ctx context.Context, p plan.Plan, v plan.Version, at time.Time) (out plan.Version, fresh bool, err error) {
	defer errs.Wrap(&err, "publish plan %s", p.Code)
	v.Plan, v.Hash = p.Code, v.ContentHash()
	p.Archived = false // kept in a column; publishing puts a plan on sale again
	words, err := json.Marshal(p)
	if err != nil {
		return out, false, err
	}
	db := s.db.WithContext(ctx)
	row := planRow{Code: string(p.Code), Position: p.Position, Definition: words}
	// The upsert locks the plan's row, so that two publishers cannot give out one number.
	if err := db.Clauses(onConflictUpdate([]string{"code"}, "position", "definition", "archived_at")).Create(&row).Error; err != nil {
		return out, false, translate(err)
	}
	var latest planVersionRow
	if err := db.Where("plan_code = ?", string(p.Code)).Order("number DESC").Limit(1).Find(&latest).Error; err != nil {
		return out, false, translate(err)
	}
	if latest.ArchivedAt == nil && hex.EncodeToString(latest.ContentHash) == v.Hash {
		out, err = s.version(latest)
		return out, false, err
	}
	v.Number, v.PublishedAt, v.ArchivedAt = latest.Number+1, at.UTC(), time.Time{}
	definition, err := json.Marshal(v)
	if err != nil {
		return out, false, err
	}
	hash, err := hex.DecodeString(v.Hash)
	if err != nil {
		return out, false, err
	}
	return v, true, translate(db.Create(&planVersionRow{
		PlanCode: string(p.Code), Number: v.Number, Definition: definition, ContentHash: hash, PublishedAt: &at, CreatedAt: at,
	}).Error)
}

func (s planStore) Archive(ctx context.Context, code plan.Code, number int, at time.Time) (err error) {
	defer errs.Wrap(&err, "archive version %d of plan %s", number, code)
	db := s.db.WithContext(ctx)
	// The plan's row first, as Publish does.
	var p planRow
	if err := db.Clauses(clause.Locking{Strength: "UPDATE"}).Where("code = ?", string(code)).Take(&p).Error; err != nil {
		return notFound(err, plan.ErrVersionNotFound)
	}
	res := db.Model(&planVersionRow{}).Where("plan_code = ? AND number = ?", string(code), number).
		Update("archived_at", gorm.Expr("COALESCE(archived_at, ?)", at))
	if res.Error != nil {
		return translate(res.Error)
	}
	if res.RowsAffected == 0 {
		return plan.ErrVersionNotFound
	}
	return translate(db.Exec(`UPDATE plans SET archived_at = ? WHERE code = ? AND archived_at IS NULL
		AND NOT EXISTS (SELECT 1 FROM plan_versions v WHERE v.plan_code = plans.code AND v.archived_at IS NULL)`,
		at, string(code)).Error)
}
