package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"upkeep"
)

// progress shows work on an image to people: a bar with rate and time left on a
// terminal, for steps that take longer than a second; plain lines in a pipe.
type progress struct {
	mu    sync.Mutex
	out   io.Writer
	bars  *mpb.Progress // nil when out is no terminal
	bar   *mpb.Bar
	step  string
	since time.Time
	told  bool // the step has its line
}

// unseen is how long a step may take before anything is shown of it.
const unseen = time.Second

func newProgress(out io.Writer) *progress {
	p := &progress{out: out}
	if file, is := out.(*os.File); is && term.IsTerminal(int(file.Fd())) {
		p.bars = mpb.New(mpb.WithOutput(file), mpb.WithWidth(40))
	}
	return p
}

// tellStop says at once that work is being stopped: a kernel writes what was written to
// a mounted image before it lets go of it, and blocks of a large file are freed one by
// one, which lasts. The function that it returns ends that.
func (p *progress) tellStop(ctx context.Context) func() {
	told := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(told)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.endStep() // a bar would write over it
		fmt.Fprintln(p.out, "stopping ...")
	})
	return func() {
		if !stop() {
			<-told
		}
	}
}

func (p *progress) event(e upkeep.ImageEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Event {
	case upkeep.ImageStep:
		p.endStep()
		p.step, p.since, p.told = e.Step, e.At, false
	case upkeep.ImageNote:
		fmt.Fprintln(p.out, "note:", upkeep.Printable(e.Text))
	case upkeep.ImageProgress:
		if e.At.Sub(p.since) >= unseen {
			p.draw(e)
		}
	}
}

func (p *progress) draw(e upkeep.ImageEvent) {
	if p.bars == nil {
		if !p.told {
			p.told = true
			fmt.Fprintf(p.out, "%s ...\n", upkeep.Printable(p.step))
		}
		return
	}
	if p.bar == nil {
		after := []decor.Decorator{decor.Percentage(decor.WC{W: 5}), decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 8})}
		if e.Total > 1000 { // bytes rather than thousandths
			after = append(after, decor.AverageSpeed(decor.SizeB1024(0), " % .1f", decor.WC{W: 12}))
		}
		p.bar = p.bars.New(e.Total, mpb.BarStyle().Rbound("|").Lbound("|"),
			mpb.BarRemoveOnComplete(), mpb.PrependDecorators(decor.Name(upkeep.Printable(p.step), decor.WC{W: 20, C: decor.DindentRight})), mpb.AppendDecorators(after...))
		p.bar.DecoratorAverageAdjust(p.since)
	}
	p.bar.SetTotal(e.Total, false)
	p.bar.SetCurrent(e.Done)
}

func (p *progress) endStep() {
	if p.bar != nil {
		p.bar.Abort(true)
		p.bar.Wait()
		p.bar = nil
	}
}

// end leaves the terminal as it was.
func (p *progress) end() {
	p.endStep()
	if p.bars != nil {
		p.bars.Wait()
	}
}
