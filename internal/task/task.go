// Package task has the typed payload of each kind of job: what control asks of
// an agent. Both sides use the same types, and both validate: control to tell a
// person early, the agent because it believes nobody.
//
// A payload names things by what was declared (an account, a site); paths, owners
// and modes follow from that on the agent's side. Adding a kind is one file here,
// one in package agent, and a line in each registry.
package task

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"

	"upkeep"
)

// Payload is what a job of one kind carries.
type Payload interface {
	// Kind is one of the root package's job kinds.
	Kind() string
	// Object is what the job is about, such as "site/example.test": with server
	// and kind it identifies a pending job.
	Object() string
	Validate() []upkeep.FieldError
}

// kind is an entry of the registry.
type kind struct {
	role string // that a server needs for it; empty for any
	read func([]byte) (Payload, error)
}

// kinds is the registry.
var kinds = map[string]kind{
	upkeep.JobMkdir:        {upkeep.RoleFiles, read[Mkdir]},
	upkeep.JobUserEnsure:   {"", read[UserEnsure]},
	upkeep.JobUserRemove:   {"", read[UserRemove]},
	upkeep.JobSiteFiles:    {upkeep.RoleFiles, read[SiteFiles]},
	upkeep.JobSiteApply:    {upkeep.RoleWeb, read[SiteApply]},
	upkeep.JobSiteRemove:   {upkeep.RoleWeb, read[SiteRemove]},
	upkeep.JobSiteSync:     {upkeep.RoleWeb, read[SiteSync]},
	upkeep.JobZonePublish:  {upkeep.RoleDNS, read[ZonePublish]},
	upkeep.JobNotification: {"", read[Notification]},
	upkeep.JobServerFacts:  {"", read[ServerFacts]},
	upkeep.JobServerPurge:  {upkeep.RoleWeb, read[ServerPurge]},

	upkeep.JobImageList:   {upkeep.RoleImages, read[ImageList]},
	upkeep.JobImageCreate: {upkeep.RoleImages, read[ImageCreate]},
	upkeep.JobImageGrow:   {upkeep.RoleImages, read[ImageGrow]},
	upkeep.JobImageShrink: {upkeep.RoleImages, read[ImageShrink]},
	upkeep.JobImageMkFS:   {upkeep.RoleImages, read[ImageMkFS]},
	upkeep.JobImageCheck:  {upkeep.RoleImages, read[ImageCheck]},
	upkeep.JobImageCopy:   {upkeep.RoleImages, read[ImageCopy]},
	upkeep.JobImageClone:  {upkeep.RoleImages, read[ImageClone]},
	upkeep.JobImagePack:   {upkeep.RoleImages, read[ImagePack]},
	upkeep.JobImageUnpack: {upkeep.RoleImages, read[ImageUnpack]},
}

// Kinds lists the kinds in the registry, sorted.
func Kinds() []string { return sortedKinds }

// Role is the role that a server needs for jobs of the kind, "" for any.
func Role(kind string) string { return kinds[kind].role }

// Decode reads and validates the payload of a kind. A field that the kind does
// not have is an error, as is anything after the value.
func Decode(name string, text []byte) (Payload, error) {
	k, known := kinds[name]
	if !known {
		return nil, fmt.Errorf("job kind %q is not known", name)
	}
	payload, err := k.read(text)
	if err != nil {
		if broken := misshapen(name, reflect.TypeOf(payload), text); len(broken) > 0 {
			return nil, &upkeep.InvalidError{Fields: broken}
		}
		return nil, fmt.Errorf("reading a job of the kind %s: %w", name, err)
	}
	if broken := payload.Validate(); len(broken) > 0 {
		return nil, &upkeep.InvalidError{Fields: broken}
	}
	return payload, nil
}

// read returns a value of the kind's type beside an error, too.
func read[T Payload](text []byte) (Payload, error) {
	var value T
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&value); err != nil {
		return value, err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return value, fmt.Errorf("more than one JSON value")
	}
	return value, nil
}
