package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
)

func newServerImages(a *app) *cobra.Command {
	var last bool
	patience := time.Minute
	c := &cobra.Command{
		Use:   "images [SERVER]",
		Short: "List the disk images that servers have",
		Long: `List the images below the roots of a server's policy, or of all servers with the role
images: how large they are, what they take and hold, and who has them. Agents that
are connected are asked; of others it is shown what they told last.

Images are worked on by jobs: upkeep job run image.grow --server SERVER ...`,
		Example: "  upkeep server images vm1\n  upkeep server images --last -o json",
		Args:    atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			up, err := a.client()
			if err != nil {
				return err
			}
			server := ""
			if len(args) == 1 {
				server = args[0]
			}
			if !last {
				if err := a.askImages(c.Context(), up, server, patience); err != nil {
					return err
				}
			}
			lists, err := up.Images(c.Context(), server)
			if err != nil {
				return err
			}
			return a.imageLists(lists)
		},
	}
	c.Flags().BoolVar(&last, "last", false, "ask no agent; show what they told last")
	c.Flags().DurationVar(&patience, "timeout", patience, "how `long` to wait for agents")
	return c
}

// askImages has the agents that are connected tell their images anew.
func (a *app) askImages(ctx context.Context, up *client.Client, server string, patience time.Duration) error {
	servers, err := up.Servers(ctx)
	if err != nil {
		return err
	}
	var ids []int64
	for _, s := range servers {
		if !s.Connected || server != "" && s.Name != server || server == "" && !slices.Contains(s.Roles, upkeep.RoleImages) {
			continue
		}
		made, err := up.RunJob(ctx, wire.NewJob{Kind: upkeep.JobImageList, Server: s.Name})
		if err != nil {
			return err
		}
		ids = append(ids, made.ID)
	}
	if len(ids) == 0 {
		return nil
	}
	jobs, err := a.await(ctx, up, patience, ids...)
	if err != nil {
		return err
	}
	if server != "" {
		return unlessDone(jobs)
	}
	for _, job := range jobs { // one that cannot tell hides no other
		if err := unlessDone([]upkeep.Job{job}); err != nil {
			fmt.Fprintf(a.err, "warning: %s\n", upkeep.Printable(err.Error()))
		}
	}
	return nil
}

func (a *app) imageLists(lists []upkeep.ImageList) error {
	if a.output != "table" {
		return a.show(append([]upkeep.ImageList{}, lists...))
	}
	now := time.Now()
	t := newTable("SERVER", "IMAGE", "SIZE", "TAKES", "HOLDS", "USED", "STATE", "WHO HAS IT")
	shown := 0
	for _, list := range lists {
		for _, i := range list.Images {
			shown++
			t.add(list.Server, i.Root+"/"+i.Path, upkeep.Size(i.Size).About(), upkeep.Size(i.Allocated).About()+" "+string(i.Kind),
				imageHolds(i), imageUsed(i), imageState(i), strings.Join(i.Holders, "; "))
		}
	}
	if shown > 0 {
		if err := t.write(a.out); err != nil {
			return err
		}
	}
	for _, list := range lists {
		a.imageNotes(list, now)
	}
	return nil
}

// imageNotes tells beside the table what it does not show.
func (a *app) imageNotes(list upkeep.ImageList, now time.Time) {
	server := upkeep.Printable(list.Server)
	switch {
	case list.At.IsZero():
		fmt.Fprintf(a.err, "%s: its agent has not reported its images yet\n", server)
	case len(list.Images) == 0:
		fmt.Fprintf(a.err, "%s: there are no images\n", server)
	case now.Sub(list.At) > time.Minute:
		fmt.Fprintf(a.err, "%s: as it was %s\n", server, ago(list.At, now))
	}
	if list.More > 0 {
		fmt.Fprintf(a.err, "%s: %s not listed\n", server, upkeep.Plural(list.More, "more image is", "more images are"))
	}
	for _, problem := range list.Problems {
		fmt.Fprintf(a.err, "warning: %s: %s\n", server, upkeep.Printable(problem))
	}
}

// imageHolds is what an image holds.
func imageHolds(i upkeep.ImageFile) string {
	text := i.Type
	switch {
	case i.Partitions > 0:
		text = upkeep.Plural(i.Partitions, "partition", "partitions")
	case text == "":
		text = "-"
	}
	if i.Label != "" {
		text += " " + i.Label
	}
	switch {
	case i.Holds > 0:
		text += fmt.Sprintf(", packed, of %s", upkeep.Size(i.Holds).About())
	case i.Format != "raw":
		text += ", " + i.Format
	}
	return text
}

func imageUsed(i upkeep.ImageFile) string {
	if i.Used == 0 && i.Free == 0 {
		return "-"
	}
	return upkeep.Size(i.Used).About()
}

// imageState is the one thing to say of its state.
func imageState(i upkeep.ImageFile) string {
	switch {
	case i.Unfinished != "":
		return "UNFINISHED: " + i.Unfinished
	case i.Damage != "":
		return "DAMAGED: " + i.Damage
	case i.State == "":
		return "-"
	}
	return i.State
}
