package postgres

import (
	"embed"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
	"github.com/ehsm-kms/ehsm/internal/host/store/storetest"
)

// Databases as released versions left them, one for each version of the schema.
// Add files, never change one: a failure here means that stored records can no
// longer be read.
//
//go:embed testdata/released/*.sql
var released embed.FS

func TestReleased(t *testing.T) {
	files, err := fs.Glob(released, "testdata/released/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("got released dumps %v, %v", files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			dump, err := released.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			url := pgtest.Database(t)
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			if _, err := conn.PgConn().Exec(t.Context(), string(dump)).ReadAll(); err != nil {
				t.Fatal(err)
			}
			storetest.CheckReleased(t, mustOpen(t, url, Options{}))
		})
	}
}
