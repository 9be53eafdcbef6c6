package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// commandTime bounds the commands of the system that are run.
const commandTime = 60 * time.Second

// maxOutput bounds what is kept of a command's output, in bytes.
const maxOutput = 16 << 10

// run runs a program of the system, given by its absolute path, with nothing of
// our environment and no shell, and returns its joined output. A command is
// given its time whatever happens to the job: one that is killed half-way may
// leave a lock, or half of its work, behind.
func run(ctx context.Context, argv ...string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	out := limited{max: maxOutput}
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	text := strings.TrimSpace(out.String())
	switch {
	case err == nil:
		return text, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return text, fmt.Errorf("%s did not end within %s", argv[0], commandTime)
	case text == "":
		return text, fmt.Errorf("running %s: %w", argv[0], err)
	}
	return text, fmt.Errorf("%s: %w: %s", argv[0], err, plainText(text))
}

// limited keeps the first bytes that are written to it.
type limited struct {
	bytes.Buffer
	max int
}

func (l *limited) Write(p []byte) (int, error) {
	if room := l.max - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// plainText makes one line of a text of unknown origin, free of what a terminal
// or a log would take for more than characters.
func plainText(text string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "?"), func(c rune) bool {
		return c <= 0x20 || c >= 0x7f && c < 0xa0 || c == '\u2028' || c == '\u2029' || c >= 0x202a && c <= 0x202e || c >= 0x2066 && c <= 0x2069
	}), " ")
}
