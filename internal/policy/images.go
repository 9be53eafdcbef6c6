package policy

import (
	"fmt"
	"maps"
	"slices"

	"upkeep"
)

// Images says where images are and what may be done with them.
type Images struct {
	// Roots are the folders below which images are, by the names that jobs use for
	// them. They and all folders in them must be root's.
	Roots map[string]Root `json:"roots"`
	// MaxSize is the largest that an image may be made.
	MaxSize upkeep.Size `json:"max_size"`
	// Trust lets this server's kernel mount images, which a crafted file system can
	// take over. Without it what takes mounting is refused.
	Trust bool `json:"trust,omitempty"`
}

// Root finds a root of images by its name.
func (i *Images) Root(name string) (Root, error) {
	if i == nil {
		return Root{}, fmt.Errorf("the policy of this server has no images: %w", upkeep.ErrRefused)
	}
	root, exists := i.Roots[name]
	if !exists {
		return Root{}, fmt.Errorf("the policy of this server has no root of images named %q: %w", name, upkeep.ErrRefused)
	}
	return root, nil
}

// AllowsSize refuses images that are larger than any may be.
func (i *Images) AllowsSize(size upkeep.Size) error {
	if size > i.MaxSize {
		return fmt.Errorf("an image of %s is larger than the %s that the policy of this server allows: %w", size.About(), i.MaxSize.About(), upkeep.ErrRefused)
	}
	return nil
}

func (b *broken) images(p Policy) {
	i := p.Images
	if len(i.Roots) == 0 {
		b.add("images.roots", "", "is required: the folders below which images are")
	}
	if i.MaxSize <= 0 {
		b.add("images.max_size", i.MaxSize.String(), "is required: the largest that an image may be made, such as 64G")
	}
	for _, name := range slices.Sorted(maps.Keys(i.Roots)) {
		at, path := "images.roots."+name, i.Roots[name].Path
		if !upkeep.ValidObject(name) {
			b.add(at, name, "must be named in lower-case letters, digits and hyphens")
		}
		if !b.folder(at, path) {
			continue
		}
		b.outsideRoots(at, path, p)
		if systemFolder(path) {
			b.add(at, path, "is a folder of the system, in which nothing may be made")
		}
		for _, other := range slices.Sorted(maps.Keys(i.Roots)) {
			if below(path, i.Roots[other].Path) || other < name && path == i.Roots[other].Path {
				b.add(at, path, "must not lie in the root %s", other)
			}
		}
	}
}
