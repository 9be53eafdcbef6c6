package image

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"upkeep"
	"upkeep/internal/image/tool"
)

// Plan is what a verb is going to do, and at what price.
type Plan struct {
	Verb  string     `json:"verb"`
	File  string     `json:"file"`
	Steps []PlanStep `json:"steps"`
	// Writes is how many bytes are written, at most. Temporary is the room that is
	// taken beside the image while the work goes on.
	Writes upkeep.Size `json:"writes"`
	// More is that how much is written besides is known only when it was.
	More      bool        `json:"writes_more,omitempty"`
	Temporary upkeep.Size `json:"temporary"`
	// Expected is how long that takes at the speed that the disk was seen to have.
	Expected upkeep.Duration `json:"expected"`
	// Undo says what a kill leaves, and how to get back.
	Undo string `json:"undo"`
}

// PlanStep is one step of a plan.
type PlanStep struct {
	What   string      `json:"what"`
	Writes upkeep.Size `json:"writes,omitempty"`
}

func (p *Plan) step(writes int64, format string, args ...any) {
	p.Steps = append(p.Steps, PlanStep{What: fmt.Sprintf(format, args...), Writes: upkeep.Size(writes)})
	p.Writes += upkeep.Size(writes)
}

// undoShadow is the Undo of work on a second file.
const undoShadow = "a kill leaves the image as it was; the old image goes when the new one has its place"

// Report is told of what goes on, from one goroutine at a time. Nil tells nobody.
type Report func(upkeep.ImageEvent)

// Work is a verb that was made ready. It holds its image until it is closed.
type Work struct {
	Plan Plan
	// Result is what was found out or made, after Do; it differs by verb.
	Result any

	do func(context.Context, *teller) error
	// confined keeps programs from anything but the image, see [Work.Confine].
	confined bool
	closers  []func() error
	// measured is a path on the disk that is asked how fast it is.
	measured string
}

// Do carries the plan out. A Work is done once.
func (w *Work) Do(ctx context.Context, report Report) error {
	t := &teller{report: report, verb: w.Plan.Verb, file: w.Plan.File}
	if w.confined {
		ctx = tool.Confined(ctx)
	}
	if err := w.do(ctx, t); err != nil {
		return w.ranOut(err)
	}
	t.tell(upkeep.ImageEvent{Event: upkeep.ImageDone})
	return nil
}

// Estimate fills in how long the plan will take. It may write a little to the disk
// to see how fast that is, so it is asked for by who shows the plan.
func (w *Work) Estimate() {
	if w.measured != "" {
		w.Plan.expect(w.measured)
	}
}

// Confine has the programs that are run reach the image and nothing else of this
// machine: a file system that was made to harm them may take them over. Verbs that are
// told not to trust their image do so by themselves.
func (w *Work) Confine() { w.confined = true }

// Confines reports whether the kernel can keep such programs from other files.
func Confines() bool { return tool.ConfinesFiles() }

// Close lets go of the image. What was not done is not done.
func (w *Work) Close() error {
	var all []error
	for i := len(w.closers) - 1; i >= 0; i-- {
		all = append(all, w.closers[i]())
	}
	w.closers = nil
	return errors.Join(all...)
}

// fails closes what a verb had opened before it found that it cannot go on.
func (w *Work) fails(err error) (*Work, error) {
	return nil, errors.Join(w.ranOut(err), w.Close())
}

// teller tells of the work that goes on.
type teller struct {
	report     Report
	verb, file string

	mu   sync.Mutex
	step string
	last time.Time
}

// pause is the least time between two events of progress.
const pause = 100 * time.Millisecond

func (t *teller) tell(e upkeep.ImageEvent) {
	if t.report == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e.At, e.Verb, e.File = time.Now(), t.verb, t.file
	if e.Event == upkeep.ImageStep {
		t.step, t.last = e.Step, time.Time{}
	}
	if e.Event == upkeep.ImageProgress {
		if e.At.Sub(t.last) < pause && e.Done != e.Total {
			return
		}
		t.last = e.At
	}
	if e.Step == "" {
		e.Step = t.step
	}
	t.report(e)
}

// begin tells that a step begins.
func (t *teller) begin(format string, args ...any) {
	t.tell(upkeep.ImageEvent{Event: upkeep.ImageStep, Step: fmt.Sprintf(format, args...)})
}

// progress tells how far the step has come. It is given to parts as it is.
func (t *teller) progress(done, total int64) {
	t.tell(upkeep.ImageEvent{Event: upkeep.ImageProgress, Done: done, Total: total})
}

// note tells something that the person should know.
func (t *teller) note(format string, args ...any) {
	t.tell(upkeep.ImageEvent{Event: upkeep.ImageNote, Text: fmt.Sprintf(format, args...)})
}
