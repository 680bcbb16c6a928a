package postgres

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

type everyRow struct {
	Text     string
	MaybeInt *int64
	Small    int16
	Truth    bool
	At       time.Time
	MaybeAt  *time.Time
	Name     uuid.UUID
	Bytes    []byte
	Document []byte `gorm:"type:jsonb"`
}

func (everyRow) TableName() string { return "every" }

// What the driver reads of our arrays is what was written, and what we read of its values is what it wrote.
func TestValuesAreAsTheDriverHasThem(t *testing.T) {
	t.Parallel()

	at := time.Date(1999, 12, 31, 23, 59, 59, 123456000, time.UTC)
	rows := []everyRow{
		{"", nil, 0, false, time.UnixMicro(0).UTC(), nil, uuid.Nil, nil, nil},
		{"ü", new(int64(-5)), -7, true, at, new(at.AddDate(40, 0, 0)), uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057"), []byte{}, []byte(`{"a": 1}`)},
	}
	every := tableOf[everyRow]()
	arrays := every.inserts.arrays(every.insert(rows...).rows)
	types := pgtype.NewMap()
	read := make([]everyRow, len(rows))
	for c, column := range every.columns {
		field := reflect.TypeFor[everyRow]().Field(c).Type
		array, ok := types.TypeForName("_" + map[string]string{"boolean": "bool", "bigint": "int8"}[column.cast])
		if !ok {
			array, ok = types.TypeForName("_" + column.cast)
		}
		if !ok {
			t.Fatalf("no arrays of %s", column.cast)
		}
		values := reflect.New(reflect.SliceOf(field))
		if err := types.Scan(array.OID, pgtype.BinaryFormatCode, arrays[c], values.Interface()); err != nil {
			t.Fatalf("%s: %v", column.name, err)
		}
		for i := range rows {
			theirs := values.Elem().Index(i)
			v := value{row: make([][]byte, len(every.columns))}
			var err error
			if v.row[c], err = types.Encode(column.array, pgtype.BinaryFormatCode, theirs.Interface(), []byte{}); err != nil {
				t.Fatalf("%s: %v", column.name, err)
			}
			v.into(c, reflect.ValueOf(&read[i]).Elem().Field(c).Addr().Interface(), column.document)
			if v.err != nil {
				t.Errorf("%s: %v", column.name, v.err)
			}
		}
	}
	for i := range rows {
		read[i].At = read[i].At.UTC()
		if !reflect.DeepEqual(read[i], rows[i]) {
			t.Errorf("%+v was written, and %+v read", rows[i], read[i])
		}
	}
}
