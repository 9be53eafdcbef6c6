package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"upkeep"
	"upkeep/internal/image"
	"upkeep/internal/image/pack"
)

func newImage(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "image",
		Short: "Make, change and copy raw disk and file-system images",
		Long: `Make, grow, shrink, check and copy raw images so that nothing can be lost: a change
ends in the old or the new state whenever it is killed, and none is begun while the
image is mounted, attached, open in a virtual machine or held by another program.

These verbs work on files of this machine and need no running upkeep. Each takes
--plan, which shows what it would do, and -o json, which prints an event a line.
Sizes are bytes, or K, M, G, T: powers of 1024.`,
		Args: noArgs,
		RunE: verbsOnly,
	}
	c.AddCommand(
		newImageCreate(a), newImageMkFS(a), newImageGrow(a), newImageShrink(a), newImageCheck(a), newImageInfo(a),
		newImageTrim(a), newImageClone(a), newImageCopy(a), newImagePack(a), newImageUnpack(a),
		newImageLs(a), newImageCat(a), newImageRecover(a),
		newImageHolders(a), newImageMount(a), newImageUmount(a), newImageChroot(a), newImageInside(),
	)
	return c
}

// imageVerb is what all verbs of images have in common.
type imageVerb struct {
	*app
	plan, ask bool
}

// planFlag adds the flag of all verbs.
func (v *imageVerb) planFlag(c *cobra.Command) {
	c.Flags().BoolVar(&v.plan, "plan", false, "show what would be done, at what price and how it is undone, and do nothing")
}

// flags adds the flags of a verb that changes something.
func (v *imageVerb) flags(c *cobra.Command) {
	v.planFlag(c)
	c.Flags().BoolVar(&v.ask, "ask", false, "show the plan, and ask before it is carried out")
}

// run carries work out, or shows its plan. Done is what is printed for people at
// the end.
func (v *imageVerb) run(ctx context.Context, work *image.Work, done func() string) (err error) {
	defer func() { err = errors.Join(err, work.Close()) }()
	if v.plan || v.ask {
		work.Estimate()
	}
	if v.plan {
		return v.showPlan(work.Plan)
	}
	if v.ask {
		if err := v.confirm(work.Plan); err != nil {
			return err
		}
	}
	if v.output == "json" {
		return v.lines(ctx, work)
	}
	shown := newProgress(v.err)
	ended := shown.tellStop(ctx)
	err = work.Do(ctx, shown.event)
	ended()
	shown.end()
	if err != nil {
		return interrupted(ctx, work, err)
	}
	if v.output == "yaml" {
		if work.Result == nil {
			return nil
		}
		return v.show(work.Result)
	}
	fmt.Fprintln(v.out, upkeep.Printable(done()))
	return nil
}

// lines prints an event a line, and the result with the last.
func (v *imageVerb) lines(ctx context.Context, work *image.Work) error {
	encoder := json.NewEncoder(v.out)
	encoder.SetEscapeHTML(false)
	err := work.Do(ctx, func(e upkeep.ImageEvent) {
		line := struct {
			upkeep.ImageEvent
			Result any `json:"result,omitempty"`
		}{ImageEvent: e}
		if e.Event == upkeep.ImageDone {
			line.Result = work.Result
		}
		encoder.Encode(line)
	})
	return interrupted(ctx, work, err)
}

// interrupted says of work that a person ended what is left of it.
func interrupted(ctx context.Context, work *image.Work, err error) error {
	if err == nil || ctx.Err() == nil || !errors.Is(err, ctx.Err()) && !errors.Is(err, context.Cause(ctx)) {
		return err
	}
	text := err.Error()
	for _, why := range []error{ctx.Err(), context.Cause(ctx)} {
		text = strings.TrimSuffix(strings.TrimSuffix(text, why.Error()), ": ")
	}
	left, _, _ := strings.Cut(work.Plan.Undo, "; to undo it") // there is nothing to undo
	told := &interruptedError{text: cmp.Or(text, left), err: err}
	if text == "" || strings.Contains(text, "was left as it was") {
		return told
	}
	return upkeep.WithHint(told, left)
}

// looking shows the plan of a verb that only looks at a file, which must be there, or at
// an address.
func (v *imageVerb) looking(verb, file string, steps ...string) error {
	if !pack.IsURL(file) {
		if _, err := os.Stat(file); err != nil {
			return err
		}
	}
	plan := image.Plan{Verb: verb, File: file, Undo: "it only reads"}
	for _, step := range steps {
		plan.Steps = append(plan.Steps, image.PlanStep{What: step})
	}
	return v.showPlan(plan)
}

func (v *imageVerb) showPlan(p image.Plan) error {
	if v.output != "table" {
		return v.show(p)
	}
	return writePlan(v.out, p)
}

func writePlan(w io.Writer, p image.Plan) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", p.Verb, upkeep.Printable(p.File))
	for i, step := range p.Steps {
		fmt.Fprintf(&b, "  %d. %s\n", i+1, upkeep.Printable(step.What))
	}
	writes := p.Writes.About()
	if p.More {
		writes = "what is in it, which is known only then"
	}
	fmt.Fprintf(&b, "writes      %s\n", writes)
	fmt.Fprintf(&b, "temporary   %s beside the image\n", p.Temporary.About())
	switch {
	case p.Expected == 0:
	case time.Duration(p.Expected) <= time.Second:
		b.WriteString("expected    less than a second\n")
	default:
		fmt.Fprintf(&b, "expected    about %s, at the speed this disk was just seen to have\n", time.Duration(p.Expected).Round(time.Second))
	}
	fmt.Fprintf(&b, "undo        %s\n", upkeep.Printable(p.Undo))
	_, err := io.WriteString(w, b.String())
	return err
}

// confirm shows the plan and wants a yes. No answer is a no.
func (v *imageVerb) confirm(p image.Plan) error {
	if err := writePlan(v.err, p); err != nil {
		return err
	}
	fmt.Fprint(v.err, "Go on? [y/N] ")
	answer, err := bufio.NewReader(v.in).ReadString('\n')
	if err != nil && answer == "" {
		fmt.Fprintln(v.err)
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return fmt.Errorf("%w: it was not confirmed; nothing was changed", upkeep.ErrRefused)
	}
	return nil
}

// partitionFlag is the flag of verbs that work on one partition of an image.
func partitionFlag(c *cobra.Command, number *int, what string) {
	c.Flags().IntVar(number, "partition", 0, what+"; 0 for an image without any")
}

// place is an image, or a partition of one, as messages name it.
func place(file string, partition int) string {
	if partition == 0 {
		return file
	}
	return fmt.Sprintf("partition %d of %s", partition, file)
}

// sizeFlag is a flag that holds a size.
type sizeFlag struct{ size *upkeep.Size }

var _ pflag.Value = sizeFlag{}

func (f sizeFlag) String() string {
	if f.size == nil || *f.size == 0 {
		return ""
	}
	return f.size.String()
}

func (f sizeFlag) Set(text string) error { return f.size.UnmarshalText([]byte(text)) }
func (f sizeFlag) Type() string          { return "size" }
