package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"banger"

	sqlite3 "modernc.org/sqlite/lib"
)

const selectImages = `SELECT id, coalesce(name, ''), coalesce(managed, 0) <> 0, coalesce(artifact_dir, ''),
	coalesce(rootfs_path, ''), coalesce(work_seed_path, ''), coalesce(kernel_path, ''), coalesce(initrd_path, ''),
	coalesce(modules_dir, ''), coalesce(build_size, ''), coalesce(seeded_ssh_public_key_fingerprint, ''),
	coalesce(created_at, ''), coalesce(updated_at, '') FROM images `

func scanImage(scan func(...any) error) (i banger.Image, err error) {
	var created, updated string
	err = scan(&i.ID, &i.Name, &i.Managed, &i.ArtifactDir, &i.RootfsPath, &i.WorkSeedPath, &i.KernelPath, &i.InitrdPath,
		&i.ModulesDir, &i.BuildSize, &i.SeededSSHKeyFingerprint, &created, &updated)
	i.CreatedAt, i.UpdatedAt = parseTime(created), parseTime(updated)
	return i, err
}

// Images lists all images, oldest first.
func (s *Store) Images(ctx context.Context) ([]banger.Image, error) {
	images, err := listImages(ctx, &s.kept)
	return images, fail(err, "cannot list images")
}

func listImages(ctx context.Context, q querier) ([]banger.Image, error) {
	rows, err := q.QueryContext(ctx, selectImages+"ORDER BY rowid")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var images []banger.Image
	for rows.Next() {
		i, err := scanImage(rows.Scan)
		if err != nil {
			return nil, err
		}
		images = append(images, i)
	}
	slices.SortStableFunc(images, func(a, b banger.Image) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return images, rows.Err()
}

// Image is the image with this id.
func (s *Store) Image(ctx context.Context, id string) (banger.Image, error) {
	return s.oneImage(ctx, "id", id)
}

// ImageByName is the image with exactly this name.
func (s *Store) ImageByName(ctx context.Context, name string) (banger.Image, error) {
	return s.oneImage(ctx, "name", name)
}

func (s *Store) oneImage(ctx context.Context, column, value string) (banger.Image, error) {
	i, found, err := findImage(ctx, &s.kept, column, value)
	if err == nil && !found {
		err = banger.Errorf(banger.NotFound, "there is no such image").Hint("banger image list")
	}
	if err != nil {
		return banger.Image{}, fail(err, "cannot find image %s", value)
	}
	return i, nil
}

func findImage(ctx context.Context, q querier, column, value string) (i banger.Image, found bool, err error) {
	row := q.QueryRowContext(ctx, selectImages+"WHERE "+column+" = ? ORDER BY rowid LIMIT 1", value)
	i, err = scanImage(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return banger.Image{}, false, nil
	}
	return i, err == nil, err
}

// UpsertImage writes an image's row. CreatedAt of an existing row stays,
// UpdatedAt becomes now. A name that another row has is AlreadyExists.
func (s *Store) UpsertImage(ctx context.Context, image banger.Image) error {
	err := s.write(ctx, func(tx querier) error { return upsertImage(ctx, tx, image) })
	return fail(err, "cannot save image %s", image.Name)
}

func upsertImage(ctx context.Context, tx querier, i banger.Image) error {
	other, found, err := findImage(ctx, tx, "name", i.Name)
	if err != nil {
		return err
	}
	if found && other.ID != i.ID {
		return banger.Errorf(banger.AlreadyExists, "there is an image %s already", i.Name).
			Hint("banger image delete %s", i.Name)
	}
	now := time.Now()
	if i.CreatedAt.IsZero() {
		i.CreatedAt = now
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO images (id, name, managed, artifact_dir, rootfs_path, work_seed_path, kernel_path,
			initrd_path, modules_dir, build_size, seeded_ssh_public_key_fingerprint, created_at, updated_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, managed = excluded.managed, artifact_dir = excluded.artifact_dir,
			rootfs_path = excluded.rootfs_path, work_seed_path = excluded.work_seed_path, kernel_path = excluded.kernel_path,
			initrd_path = excluded.initrd_path, modules_dir = excluded.modules_dir, build_size = excluded.build_size,
			seeded_ssh_public_key_fingerprint = excluded.seeded_ssh_public_key_fingerprint, updated_at = excluded.updated_at`,
		i.ID, i.Name, i.Managed, i.ArtifactDir, i.RootfsPath, i.WorkSeedPath, i.KernelPath, i.InitrdPath, i.ModulesDir,
		i.BuildSize, i.SeededSSHKeyFingerprint, formatTime(i.CreatedAt), formatTime(now))
	return err
}

// DeleteImage removes an image's row. One that is gone already is no error;
// one that a VM refers to is a Conflict, whatever the caller knew of VMs.
func (s *Store) DeleteImage(ctx context.Context, id string) error {
	err := s.write(ctx, func(tx querier) error { return deleteImage(ctx, tx, id) })
	return fail(err, "cannot delete image %s", id)
}

// ReplaceImage puts a row in the place of another one, as DeleteImage and
// UpsertImage do, or changes nothing.
func (s *Store) ReplaceImage(ctx context.Context, old string, image banger.Image) error {
	err := s.write(ctx, func(tx querier) error {
		if err := deleteImage(ctx, tx, old); err != nil {
			return err
		}
		return upsertImage(ctx, tx, image)
	})
	return fail(err, "cannot replace image %s", image.Name)
}

func deleteImage(ctx context.Context, tx querier, id string) error {
	_, err := tx.ExecContext(ctx, "DELETE FROM images WHERE id = ?", id)
	if sqliteCode(err)&0xff == sqlite3.SQLITE_CONSTRAINT {
		return banger.Errorf(banger.Conflict, "a VM uses it").Hint("banger ps -a")
	}
	return err
}
