package agent

import (
	"context"
	"slices"
	"strings"

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
// that it reads. A site that lives in another's folder shares that folder with its
// like, and with nobody who takes it away.
func (h handler) turn(j job) []claim {
	claims := []claim{{name: j.Object}}
	switch payload := j.payload.(type) {
	case interface{ From() task.ImageAt }:
		if from := payload.From().Object(); from != j.Object {
			claims = append(claims, claim{name: from})
		}
	case task.SiteApply:
		claims = append(claims, folderOf(payload.Site)...)
	case task.SiteFiles:
		claims = append(claims, folderOf(payload.Site)...)
	case task.SiteRemove:
		if !payload.KeepFiles {
			claims = append(claims, claim{name: folder + payload.Name})
		}
	}
	slices.SortFunc(claims, func(a, b claim) int { return strings.Compare(a.name, b.name) })
	return claims
}

// folder stands before the name of a site in the name of a claim to its folder.
const folder = "folder of "

func folderOf(site upkeep.Site) []claim {
	if site.SubOf == "" {
		return nil
	}
	return []claim{{name: folder + site.SubOf, shared: true}}
}
