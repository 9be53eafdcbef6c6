package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"upkeep/internal/image"
)

// imageList tells which images there are below all roots.
func imageList(ctx context.Context, r *Root, _ job) (any, error) {
	var roots []image.CatalogRoot
	var problems []string
	for _, name := range slices.Sorted(maps.Keys(r.policy.Images.Roots)) {
		root := r.policy.Images.Roots[name]
		dir, err := r.openImages(root)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %s", name, plainText(err.Error())))
			continue
		}
		folder, err := dir.Handle()
		if err = errors.Join(err, dir.Close()); err != nil {
			return nil, err
		}
		defer folder.Close()
		roots = append(roots, image.CatalogRoot{Name: name, Folder: folder, Mounts: root.Mounts})
	}
	list, err := r.images.catalog.List(ctx, roots)
	if err != nil {
		return nil, err
	}
	list.Server, list.Problems = r.o.Server, append(problems, list.Problems...)
	return list, nil
}
