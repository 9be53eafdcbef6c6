package store

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"testing/fstest"

	"github.com/pressly/goose/v3"
	bundialect "github.com/uptrace/bun/dialect"

	"upkeep"
)

// One text serves both databases: the few column types that differ are written
// ${NAME} and filled in, so numbers, names and statements cannot drift apart.
//
//go:embed migrations/*.sql
var migrations embed.FS

func (s *Store) migrate(ctx context.Context) error {
	provider, err := s.migrations()
	if err != nil {
		return err
	}
	current, newest, err := provider.GetVersions(ctx)
	if err != nil {
		return s.explain("reading the version of the database", err)
	}
	if current > newest {
		return upkeep.WithHint(
			fmt.Errorf("opening the database: it has version %d and this program knows only up to %d", current, newest),
			"it was written by a newer upkeep; run that one, or restore the copy made before the upgrade")
	}
	if _, err := provider.Up(ctx); err != nil {
		return s.explain("bringing the database up to date", err)
	}
	return s.explain("bringing the database up to date", s.dialect.keepTypes(ctx, s.write))
}

func (s *Store) migrations() (*goose.Provider, error) {
	rendered, err := render(s.dialect.columnTypes())
	if err != nil {
		return nil, fmt.Errorf("reading the migrations: %w", err)
	}
	name := goose.DialectSQLite3
	if s.write.Dialect().Name() == bundialect.PG {
		name = goose.DialectPostgres
	}
	provider, err := goose.NewProvider(name, s.write.DB, rendered, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("reading the migrations: %w", err)
	}
	return provider, nil
}

// render fills column types in.
func render(types map[string]string) (fs.FS, error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	rendered := fstest.MapFS{}
	for _, file := range files {
		text, err := migrations.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var unknown error
		filled := os.Expand(string(text), func(name string) string {
			if _, known := types[name]; !known {
				unknown = fmt.Errorf("%s: ${%s} has no column type", file, name)
			}
			return types[name]
		})
		if unknown != nil {
			return nil, unknown
		}
		rendered[file[len("migrations/"):]] = &fstest.MapFile{Data: []byte(filled), Mode: 0o444}
	}
	return rendered, nil
}
