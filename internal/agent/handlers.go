package agent

import (
	"context"
	"slices"

	"upkeep"
	"upkeep/internal/task"
)

// handler carries out jobs of one kind. What it returns is the result of the
// job, as JSON.
type handler struct {
	do func(context.Context, *Root, job) (any, error)
	// again is true for kinds that cost little and find out by themselves whether
	// anything is to be done: they put right what somebody else has changed.
	again bool
}

// handlers is the registry: one file and one line for each kind.
var handlers = map[string]handler{
	upkeep.JobMkdir:       {mkdir, true},
	upkeep.JobUserEnsure:  {userEnsure, true},
	upkeep.JobUserRemove:  {userRemove, true},
	upkeep.JobSiteFiles:   {siteFiles, true},
	upkeep.JobSiteApply:   {siteApply, true},
	upkeep.JobSiteRemove:  {siteRemove, false},
	upkeep.JobSiteSync:    {siteSync, true},
	upkeep.JobZonePublish: {zonePublish, true},
	upkeep.JobServerFacts: {serverFacts, true},
	upkeep.JobServerPurge: {serverPurge, true},

	upkeep.JobImageList:   {imageList, true},
	upkeep.JobImageCreate: {imageCreate, false},
	upkeep.JobImageGrow:   {imageGrow, false},
	upkeep.JobImageShrink: {imageShrink, false},
	upkeep.JobImageMkFS:   {imageMkFS, false},
	upkeep.JobImageCheck:  {imageCheck, true},
	upkeep.JobImageCopy:   {imageCopy, false},
	upkeep.JobImageClone:  {imageClone, false},
	upkeep.JobImagePack:   {imagePack, false},
	upkeep.JobImageUnpack: {imageUnpack, false},
}

// turn is what a job waits for: that no other job for its object runs, or for one
// that it reads.
func (h handler) turn(j job) []string {
	if reads, is := j.payload.(interface{ From() task.ImageAt }); is {
		both := []string{j.Object, reads.From().Object()}
		slices.Sort(both)
		return slices.Compact(both)
	}
	return []string{j.Object}
}
