package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// floor is what no system can be below by much: files, one test, one graceful
// reload, from a script without a database.
type floor struct {
	*apache
	mu   sync.Mutex
	used time.Duration
}

func startFloor(_ options, dir string) (stage, error) {
	a, err := newApache(dir)
	if err != nil {
		return nil, err
	}
	return &floor{apache: a}, nil
}

// floorScript writes one file for each name that it reads, then tests and reloads.
const floorScript = `cd "$HOSTED" || exit 1
while read -r name; do
	mkdir -p "$HTDOCS/$name"
	cat > "50-$name.conf" <<END
<VirtualHost *:$PORT>
	ServerName $name
	ServerAlias www.$name
	DocumentRoot $HTDOCS/$name
	RewriteEngine on
	RewriteCond %{REQUEST_METHOD} !^(GET|POST|HEAD)\$
	RewriteRule .* - [F]
</VirtualHost>
END
done < "$NAMES"
apache2 -f "$CONFIG" -t 2>/dev/null && apache2 -f "$CONFIG" -k graceful
`

func (f *floor) add(names []string) error {
	cmd, err := f.begin(names)
	if err == nil {
		go func() { _ = cmd() }()
	}
	return err
}

func (f *floor) begin(names []string) (wait func() error, err error) {
	list := filepath.Join(f.dir, "names")
	if err := os.WriteFile(list, []byte(strings.Join(names, "\n")+"\n"), 0o644); err != nil {
		return nil, err
	}
	cmd, err := script(floorScript, "HOSTED="+f.hosted, "HTDOCS="+filepath.Join(f.dir, "htdocs"), "NAMES="+list, "CONFIG="+f.config, fmt.Sprintf("PORT=%d", f.port))
	if err != nil {
		return nil, err
	}
	return func() error {
		err := cmd.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.used += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		return err
	}, nil
}

func (f *floor) spent() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used
}

func (f *floor) regenerate(names []string) error {
	for _, name := range names {
		if err := os.Remove(filepath.Join(f.hosted, "50-"+name+".conf")); err != nil {
			return err
		}
	}
	return f.settle(names)
}

// settle writes everything: the script knows no better.
func (f *floor) settle(names []string) error {
	wait, err := f.begin(names)
	if err != nil {
		return err
	}
	return wait()
}
