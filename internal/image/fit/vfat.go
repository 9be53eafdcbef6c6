package fit

import (
	"errors"
)

// vfat chooses the size of clusters by the size of the whole, and what the tree
// takes depends on that.
func (s *search) vfat() (Fit, error) {
	size := max(int64(s.typ.Min), roundUp(s.usage.Bytes))
	for range maxTrials {
		t, err := s.try(size, s.options)
		if err != nil {
			return Fit{}, err
		}
		if t.info.BlockSize <= 0 {
			return Fit{}, errors.New("a vfat made for trial has no size of clusters")
		}
		want := grown(s.usage.clusters(t.info.BlockSize)*t.info.BlockSize, s.spare)
		if want <= t.usable {
			return s.explain(size, s.options, t, want), nil
		}
		size += roundUp(want - t.usable)
	}
	return Fit{}, errNone
}

func (u *Usage) clusters(cluster int64) int64 {
	var all int64
	for _, n := range u.sizes {
		all += (n + cluster - 1) / cluster // it knows no holes
	}
	for _, f := range u.folders {
		all += max((f.vfat+2)*32+cluster-1, cluster) / cluster
	}
	return all
}
