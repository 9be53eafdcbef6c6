package filesystem

import (
	"context"
	"os"
	"strconv"
	"strings"

	"upkeep/internal/image/tool"
)

var vfat = Type{
	Name: VFAT, Min: 64 << 10, Programs: []string{"mkfs.vfat", "fsck.vfat"},
	options: []string{"block-size"},
	make: func(ctx context.Context, file *os.File, size int64, o Options) error {
		var args []string
		if o.BlockSize != 0 { // its clusters are what others call blocks
			args = append(args, "-s", strconv.FormatInt(o.BlockSize/512, 10))
		}
		if o.Label != "" {
			args = append(args, "-n", strings.ToUpper(o.Label))
		}
		if o.UUID != "" {
			args = append(args, "-i", strings.ReplaceAll(o.UUID, "-", ""))
		}
		return tool.Command{Name: "mkfs.vfat", Args: append(args, tool.Image, strconv.FormatInt(size/1024, 10)), File: file}.OK(ctx)
	},
	check: func(ctx context.Context, file *os.File, _ Progress) (Verdict, error) {
		return fsckVFAT(ctx, file, "-n")
	},
	repair: func(ctx context.Context, file *os.File, _ Progress) (Verdict, error) {
		before, err := fsckVFAT(ctx, file, "-n")
		if err != nil || before.Clean {
			return before, err
		}
		if _, err := fsckVFAT(ctx, file, "-a"); err != nil {
			return Verdict{}, err
		}
		after, err := fsckVFAT(ctx, file, "-n")
		after.Mended = true
		if after.Clean {
			after.Found = before.Found
		}
		return after, err
	},
	NoShrink: "no program makes vfat smaller; copy its files into a smaller image: upkeep image copy OLD NEW --fs vfat --size SIZE",
	NoGrow:   "no program makes vfat larger; copy its files into a larger image: upkeep image copy OLD NEW --fs vfat --size SIZE",
}

func fsckVFAT(ctx context.Context, file *os.File, how string) (Verdict, error) {
	result, err := tool.Command{Name: "fsck.vfat", Args: []string{how, tool.Image}, File: file}.Run(ctx)
	switch {
	case err != nil:
		return Verdict{}, err
	case result.Code == 0:
		return Verdict{Clean: true}, nil
	case result.Code == 1:
		return Verdict{Found: result.Output, Hint: repairHint}, nil
	}
	return Verdict{}, tool.Failed("fsck.vfat", result)
}

var swap = Type{
	Name: Swap, Min: 40 << 10, Programs: []string{"mkswap"},
	options: []string{},
	make: func(ctx context.Context, file *os.File, size int64, o Options) error {
		var args []string
		if o.Label != "" {
			args = append(args, "-L", o.Label)
		}
		if o.UUID != "" {
			args = append(args, "-U", o.UUID)
		}
		return tool.Command{Name: "mkswap", Args: append(args, tool.Image, strconv.FormatInt(size/1024, 10)), File: file}.OK(ctx)
	},
	// There is nothing in it but its header.
	check:    func(context.Context, *os.File, Progress) (Verdict, error) { return Verdict{Clean: true}, nil },
	NoShrink: "swap holds nothing: make it anew, in a new image",
	NoGrow:   "swap holds nothing: make it anew, in a new image",
	NoRepair: "swap holds nothing: make it anew with upkeep image mkfs FILE swap",
}
