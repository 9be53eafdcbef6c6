package filesystem

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"upkeep/internal/image/tool"
)

// ReiserFS is worked on by its programs alone: no kernel is needed that knows it.
var reiserfs = Type{
	Name: ReiserFS, Min: 40 << 20, Programs: []string{"mkreiserfs", "reiserfsck", "resize_reiserfs"},
	options: []string{},
	make: func(ctx context.Context, file *os.File, size int64, o Options) error {
		args := []string{"-q", "-f", "-f"}
		if o.Label != "" {
			args = append(args, "-l", o.Label)
		}
		if o.UUID != "" {
			args = append(args, "-u", o.UUID)
		}
		return tool.Command{Name: "mkreiserfs", Args: append(args, tool.Image, strconv.FormatInt(size/4096, 10)), File: file, NoSync: true}.OK(ctx)
	},
	check:       checkReiser,
	CheckWrites: true,
	repair:      repairReiser,
	NoMin:       "resize_reiserfs cannot find the least size; say which with --to",
	grow: func(ctx context.Context, file *os.File) error {
		return resizeReiser(ctx, file, "")
	},
	shrink: func(ctx context.Context, file *os.File, size int64) error {
		return resizeReiser(ctx, file, strconv.FormatInt(size&^4095, 10))
	},
}

// Exit statuses of reiserfsck; see reiserfsck(8).
const (
	reiserMended  = 1
	reiserRebuild = 4
	reiserFixable = 6
)

func reiserfsck(ctx context.Context, file *os.File, how string) (tool.Result, error) {
	return tool.Command{Name: "reiserfsck", Args: []string{how, "-y", "-q", tool.Image}, File: file}.Run(ctx)
}

func checkReiser(ctx context.Context, file *os.File, _ Progress) (Verdict, error) {
	result, err := reiserfsck(ctx, file, "--check")
	const rebuild = "its tree would have to be rebuilt, which guesses: copy what can be read out first, then reiserfsck --rebuild-tree on a copy"
	switch {
	case err != nil:
		return Verdict{}, err
	case result.Code == 0:
		return Verdict{Clean: true}, nil
	case result.Code == reiserFixable || result.Code == reiserMended:
		return Verdict{Found: result.Output, Hint: repairHint}, nil
	case result.Code == reiserRebuild:
		return Verdict{Found: result.Output, Hint: rebuild}, nil
	}
	return Verdict{}, tool.Failed("reiserfsck", result)
}

func repairReiser(ctx context.Context, file *os.File, progress Progress) (Verdict, error) {
	before, err := checkReiser(ctx, file, progress)
	if err != nil || before.Clean {
		return before, err
	}
	if _, err := reiserfsck(ctx, file, "--fix-fixable"); err != nil {
		return Verdict{}, err
	}
	after, err := checkReiser(ctx, file, progress)
	after.Mended = true
	if after.Clean {
		after.Found = before.Found
	}
	return after, err
}

// resizeReiser fills the file, or makes it a number of bytes large. For less it
// always asks, whatever its options, since it takes that for an experiment; it
// works on a second file here, which is checked afterwards.
func resizeReiser(ctx context.Context, file *os.File, size string) error {
	verdict, err := checkReiser(ctx, file, nil)
	if err != nil {
		return err
	}
	if !verdict.Clean {
		return damaged(tool.Result{Output: verdict.Found})
	}
	c := tool.Command{Name: "resize_reiserfs", Args: []string{"-q", "-f", tool.Image}, File: file}
	if size != "" {
		c.Args = []string{"-q", "-f", "-s", size, tool.Image}
		c.Input = "y\n"
	}
	result, err := c.Run(ctx)
	switch {
	case err != nil:
		return err
	case result.Code != 0 && strings.Contains(result.Output, "free"):
		return fmt.Errorf("%w (%s)", errNotEnough, result.Output)
	case result.Code != 0 && !strings.Contains(result.Output, "already is of the needed size"):
		return tool.Failed("resize_reiserfs", result)
	}
	return nil
}
