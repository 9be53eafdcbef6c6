package webserver

import (
	"context"
	"sync"
)

// version is what a server's program said of itself, and the file that said it.
// It is asked for every few seconds and changes at an upgrade.
type version struct {
	mu      sync.Mutex
	program stamp
	text    string
}

// Version is the version of the server's program. The program is run when its
// file is not the one that was run last.
func (a *Applier) Version(ctx context.Context) (string, error) {
	file, known := a.o.Server.(interface{ program() string })
	if !known {
		return a.o.Server.Version(ctx)
	}
	v := &a.version
	v.mu.Lock()
	defer v.mu.Unlock()
	now := stampOf(file.program())
	if v.text != "" && now == v.program && now.inode != 0 {
		return v.text, nil
	}
	text, err := a.o.Server.Version(ctx)
	if err != nil {
		return "", err
	}
	v.program, v.text = now, text
	return text, nil
}

func (a Apache) program() string { return a.Program }

func (n Nginx) program() string { return n.Program }
