package importer

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"github.com/accrue-billing/accrue/internal/spreadsheet"
)

// checkpoint is what the file of that name holds: how far an import of a file has come.
type checkpoint struct {
	File    string `json:"file"`
	Sum     string `json:"sum"` // over the rows that are settled, so that a change of them is noticed
	Counts  Counts `json:"counts"`
	Rejects int64  `json:"rejects"` // bytes of the rejects' file that belong to the counts
}

// state is what is settled, and where that is kept.
type state struct {
	counts  Counts
	saved   checkpoint
	path    string // of the checkpoint; empty: none
	rejects *os.File
	out     *csv.Writer
}

// Why an import does not go on.
var (
	// ErrOtherFile says that a checkpoint belongs to another file.
	ErrOtherFile = errors.New("the checkpoint is of another file, or of rows that have changed since; remove it to begin again")
	// ErrRejectsGone says that rows which an earlier run rejected are no longer written down.
	ErrRejectsGone = errors.New("the file of rejected rows is shorter than the checkpoint says; remove both to begin again")
)

func openState(path string, opt Options) (_ *state, err error) {
	s := &state{path: opt.Checkpoint, saved: checkpoint{File: path}}
	if s.path != "" {
		if err := s.resume(); err != nil {
			return nil, err
		}
	}
	if opt.Rejects == "" {
		return s, nil
	}
	// What was written after the last checkpoint is written again.
	if s.rejects, err = os.OpenFile(opt.Rejects, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if info, err := s.rejects.Stat(); err != nil || info.Size() < s.saved.Rejects {
		return nil, errors.Join(err, s.rejects.Close(), ErrRejectsGone)
	}
	if err := errors.Join(s.rejects.Truncate(s.saved.Rejects), seekEnd(s.rejects)); err != nil {
		return nil, errors.Join(err, s.rejects.Close())
	}
	s.out = csv.NewWriter(s.rejects)
	if s.saved.Rejects == 0 {
		return s, s.out.Write([]string{"row", "status", "code", "detail", "content"})
	}
	return s, nil
}

func seekEnd(f *os.File) error {
	_, err := f.Seek(0, io.SeekEnd)
	return err
}

func (s *state) resume() error {
	data, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var c checkpoint
	if err := json.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("checkpoint %s: %w", s.path, err)
	}
	if c.File != s.saved.File {
		return fmt.Errorf("%w: %s", ErrOtherFile, c.File)
	}
	s.saved, s.counts = c, c.Counts
	return nil
}

// settle counts one batch, writes down what was not taken, and saves how far that is.
func (s *state) settle(b *batch) error {
	for i, o := range b.outcomes {
		s.counts.add(o.Status)
		if s.out == nil || o.Status == "accepted" || o.Status == "duplicate" {
			continue
		}
		row := []string{strconv.FormatInt(b.rows[i].number, 10), o.Status, o.Code, o.Detail, spreadsheet.Cell(b.rows[i].content())}
		if err := s.out.Write(row); err != nil {
			return err
		}
	}
	s.saved.Sum = b.sum
	return s.save()
}

// save replaces the checkpoint by a new one that is whole whatever happens.
func (s *state) save() error {
	if s.out != nil {
		s.out.Flush()
		end, err := s.rejects.Seek(0, io.SeekCurrent)
		if err := errors.Join(s.out.Error(), err); err != nil {
			return err
		}
		s.saved.Rejects = end
	}
	if s.path == "" {
		return nil
	}
	s.saved.Counts = s.counts
	data, err := json.Marshal(s.saved)
	if err != nil {
		return err
	}
	draft := s.path + ".new"
	if err := writeThrough(draft, append(data, '\n')); err != nil {
		return err
	}
	return os.Rename(draft, s.path)
}

// writeThrough makes a file that holds the data before its name can: after a power cut an empty one would stand there.
func writeThrough(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // where the caller keeps its checkpoint
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func (s *state) close() error {
	if s.rejects == nil {
		return nil
	}
	s.out.Flush()
	return errors.Join(s.out.Error(), s.rejects.Close())
}
