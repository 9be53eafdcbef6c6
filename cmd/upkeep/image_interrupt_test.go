package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/testkit"
)

// What is interrupted while it waits says so in a word, and not in those of Go.
func TestInterruptedWait(t *testing.T) {
	var said strings.Builder
	a := &app{err: &said}
	status := a.report(fmt.Errorf("reading http://upkeep/api/v1/jobs: %w", context.Canceled), false)
	if status != exitInterrupted || said.String() != "error: interrupted\n" {
		t.Errorf("status %d, %q", status, said.String())
	}
}

// Work that is interrupted says what it left.
func TestInterruptedImage(t *testing.T) {
	testkit.Need(t, "mke2fs", "e2fsck", "resize2fs")
	path := filepath.Join(t.TempDir(), "web.img")
	var said strings.Builder
	v := imageVerb{app: &app{out: io.Discard, err: &said, output: "table"}}
	text := func() string { return "" }
	work, err := image.Create(path, image.Creation{Size: 32 << 20, Kind: upkeep.ImageSparse, FS: "ext4"})
	if err == nil {
		err = v.run(context.Background(), work, text)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	work, err = image.Shrink(path, image.Shrinking{To: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	err = v.run(ctx, work, text)
	if err == nil || exitStatus(err) != exitInterrupted || !strings.HasPrefix(err.Error(), "interrupted: "+path+" was left as it was") || strings.Contains(err.Error(), "canceled") {
		t.Errorf("got %v, status %d", err, exitStatus(err))
	}
	if said.String() != "stopping ...\n" {
		t.Errorf("meanwhile it says %q", said.String())
	}
}

// What is left of a copy into a folder is said, since it is there to be seen.
func TestInterruptedCopy(t *testing.T) {
	left := "a kill leaves a part of the files in the folder"
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	work := &image.Work{Plan: image.Plan{Undo: left}}
	if got := hintOf(interrupted(ctx, work, fmt.Errorf("copying a to b: %w", ctx.Err()))); got != left {
		t.Errorf("a copy into a folder: %q", got)
	}
	work.Plan.Undo = "a kill leaves nothing; to undo it, remove the file"
	if got := hintOf(interrupted(ctx, work, fmt.Errorf("copying a to b: %w", ctx.Err()))); got != "a kill leaves nothing" {
		t.Errorf("a copy into a new image: %q", got)
	}
	if err := interrupted(ctx, work, ctx.Err()); hintOf(err) != "" || err.Error() != "interrupted: a kill leaves nothing" {
		t.Errorf("without a word of what it did: %v, hint %q", err, hintOf(err))
	}
	if got := hintOf(interrupted(ctx, work, fmt.Errorf("b was left as it was: %w", ctx.Err()))); got != "" {
		t.Errorf("what says itself what is left: %q", got)
	}
}
