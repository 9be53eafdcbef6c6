package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"upkeep/internal/image"
	"upkeep/internal/image/chroot"
)

// insideVerb is the verb by which the first process inside an image is started.
const insideVerb = "inside"

func newImageChroot(a *app) *cobra.Command {
	v := imageVerb{app: a}
	var o image.MountOptions
	c := &cobra.Command{
		Use:   "chroot FILE [-- COMMAND [ARGUMENT...]]",
		Short: "Run a command, or a shell, inside an image",
		Long: `Run a command inside an image, or a shell. The image is its whole tree. It has
processes, a host name, shared memory, /dev and /proc of its own: none of the host's
folders are there, so nothing in there can remove them, and what it leaves running is
ended with it. The network is the host's.

The image is lent the host's /etc/resolv.conf, and where it is a Debian system a
policy by which packages start no services; its own files stay as they are. What it
has no place for (/proc, /dev) must be a folder in it.

The command's exit status is passed on, 128 and the number for a signal, and signals
are passed on to it; the status is 127 where there is no such program in the image, and
126 where it cannot be executed. When upkeep image chroot ends, however that is,
nothing is left mounted or attached. It guards against accidents, not against an image
that means harm: the command is root on the host's kernel.`,
		Example: "  upkeep image chroot web1.img\n  upkeep image chroot web1.img -- apt-get update",
		Args:    chrootArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if v.plan {
				plan, err := image.PlanChroot(args[0], o, args[1:])
				if err != nil {
					return err
				}
				return v.showPlan(plan)
			}
			streams, err := a.realStreams()
			if err != nil {
				return err
			}
			command := chroot.Command{
				Args: args[1:], Init: []string{"image", insideVerb, "--"},
				Stdin: streams[0], Stdout: streams[1], Stderr: streams[2],
			}
			// Interrupts are the command's to take; it is asked to end by none of ours.
			status, err := image.Chroot(context.WithoutCancel(c.Context()), args[0], o, command)
			if err == nil && status != 0 {
				return statusError(status)
			}
			return err
		},
	}
	mountFlags(c, &o)
	v.planFlag(c)
	return c
}

// chrootArgs takes a file, and a command after "--"; a file whose name begins with a
// dash may stand behind it too.
func chrootArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return &usageError{err: errors.New("missing: FILE"), hint: c.UseLine()}
	}
	if len(args) > 1 && c.ArgsLenAtDash() < 0 {
		return &usageError{err: errors.New("the command stands after --"), hint: "upkeep image chroot " + args[0] + " -- " + args[1] + " ..."}
	}
	if c.ArgsLenAtDash() > 1 {
		return &usageError{err: errors.New("before -- stands one FILE"), hint: c.UseLine()}
	}
	return nil
}

// realStreams are the streams as the descriptors that another program can get.
func (a *app) realStreams() ([3]*os.File, error) {
	var files [3]*os.File
	for i, stream := range []any{a.in, a.out, a.err} {
		file, is := stream.(*os.File)
		if !is {
			return files, errors.New("a command in an image needs real files as its input and output")
		}
		files[i] = file
	}
	return files, nil
}

// newImageInside is the first process in the namespaces of a chroot.
func newImageInside() *cobra.Command {
	return &cobra.Command{
		Use:    insideVerb + " [-- COMMAND]",
		Hidden: true,
		Short:  "Be the first process inside an image (started by upkeep image chroot)",
		Args:   cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if status := chroot.Init(args); status != 0 {
				return statusError(status)
			}
			return nil
		},
	}
}
