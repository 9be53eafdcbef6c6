package zone

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"upkeep/internal/zone/control"
)

// saidWithin bounds what is said to named directly. It takes a millisecond or
// two; named's own work comes afterwards.
const saidWithin = 200 * time.Millisecond

// hasten tells named to reload the zone without the time that rndc takes to
// start, half of what a publish takes in all: as rndc would, with its key and at
// its address. It is a favour that comes before rndc and not in its place, so
// it is left out wherever it is not plain what rndc would do.
func (p *BindPublisher) hasten(ctx context.Context) bool {
	select {
	case p.bind.commands <- struct{}{}:
		defer func() { <-p.bind.commands }()
	default:
		return false // many zones change at one time, and rndc has its turn
	}
	channel, err := p.rndc.channel()
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, saidWithin)
		defer cancel()
		_, err = channel.Say(ctx, strings.Join(slices.Concat([]string{"reload", p.name}, p.view), " "))
	}
	if err != nil && p.bind.o.Logger != nil {
		p.bind.o.Logger.Debug("the reload is left to rndc alone", "zone", p.name, "why", err)
	}
	return err == nil
}

// rndcFolders is where the programs of BIND's packages look for rndc.conf, and
// for rndc.key in its place.
var rndcFolders = []string{"/etc/bind", "/etc", "/etc/namedb", "/usr/local/etc/namedb", "/usr/local/etc"}

// channel is where and with which key rndc would speak to named.
func (r rndc) channel() (control.Channel, error) { return r.channelFrom(rndcFolders) }

func (r rndc) channelFrom(folders []string) (control.Channel, error) {
	if err := isRNDC(r.argv[0]); err != nil {
		return control.Channel{}, err
	}
	options, err := rndcOptions(r.argv[1:])
	if err != nil {
		return control.Channel{}, err
	}
	config, keyOnly, err := rndcConfig(options, folders)
	if err != nil {
		return control.Channel{}, err
	}
	return channelOf(config, keyOnly, options)
}

// isRNDC returns an error unless the command is BIND's own program: a script may
// do anything, on any machine.
func isRNDC(command string) error {
	if filepath.Base(command) != "rndc" {
		return fmt.Errorf("%s is a command of the operator's own", command)
	}
	path, err := findProgram(command)
	if err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	var head [4]byte
	if _, err := io.ReadFull(file, head[:]); err != nil {
		return err
	}
	if string(head[:]) != "\x7fELF" {
		return fmt.Errorf("%s is a script", path)
	}
	return nil
}

// rndcOptions reads the options of rndc that say where and with which key it
// speaks.
func rndcOptions(args []string) (map[byte]string, error) {
	options := map[byte]string{}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if len(arg) < 2 || arg[0] != '-' || !strings.ContainsRune("ckspy", rune(arg[1])) {
			return nil, fmt.Errorf("rndc has the argument %s", arg)
		}
		value := arg[2:]
		if value == "" {
			if len(args) == 0 {
				return nil, fmt.Errorf("rndc's argument %s has no value", arg)
			}
			value, args = args[0], args[1:]
		}
		options[arg[1]] = value
	}
	return options, nil
}

// rndcConfig reads the file that rndc would go by; keyOnly says that it holds a
// key and nothing else.
func rndcConfig(options map[byte]string, folders []string) (config *statement, keyOnly bool, err error) {
	path, given := options['c']
	if !given {
		path, keyOnly = rndcFile(options['k'], folders)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	if err != nil {
		return nil, false, err
	}
	if len(text) > maxKeyFile {
		return nil, false, fmt.Errorf("%s is larger than %d bytes", path, maxKeyFile)
	}
	config, err = parseConfig(string(text))
	return config, keyOnly, err
}

func rndcFile(keyFile string, folders []string) (path string, keyOnly bool) {
	for _, dir := range folders {
		if path := filepath.Join(dir, "rndc.conf"); exists(path) {
			return path, false
		}
		if path := filepath.Join(dir, "rndc.key"); keyFile == "" && exists(path) {
			return path, true
		}
	}
	return keyFile, true
}

// channelOf picks server, port and key in rndc's order: options, the statement
// of the server, the defaults.
func channelOf(config *statement, keyOnly bool, options map[byte]string) (c control.Channel, err error) {
	defaults := config.find("options")
	pick := func(option byte, of []*statement, name, fallback, or string) string {
		if value := options[option]; value != "" {
			return value
		}
		if value, given := setting(of, name); given {
			return value
		}
		if value, given := setting(defaults, fallback); given {
			return value
		}
		return or
	}
	if err := config.plain(); err != nil {
		return c, err
	}
	host := pick('s', nil, "", "default-server", map[bool]string{true: "127.0.0.1"}[keyOnly])
	if host == "localhost" {
		host = "127.0.0.1"
	}
	server := config.find("server", host)
	if net.ParseIP(host) == nil {
		return c, fmt.Errorf("the server of rndc is %q, and no address", host)
	}
	c.Address = net.JoinHostPort(host, pick('p', server, "port", "default-port", "953"))
	keys := config.find("key")
	if name := pick('y', server, "key", "default-key", ""); name != "" {
		keys = config.find("key", name)
	}
	if len(keys) != 1 {
		return c, errors.New("it is not plain which key rndc uses")
	}
	c.Algorithm, _ = setting(keys, "algorithm")
	c.Algorithm = strings.ToLower(c.Algorithm)
	secret, _ := setting(keys, "secret")
	if c.Secret, err = base64.StdEncoding.DecodeString(secret); err != nil || len(c.Secret) == 0 {
		return c, errors.New("the secret of rndc's key is not base64")
	}
	return c, nil
}

// plainSettings are the statements of rndc.conf that channelOf understands, and
// what stands in them.
var plainSettings = map[string][]string{
	"options": {"default-server", "default-port", "default-key"},
	"server":  {"port", "key"},
	"key":     {"algorithm", "secret"},
}

// plain returns an error if a file of rndc's has anything that channelOf would
// pass over.
func (s *statement) plain() error {
	for _, outer := range s.block {
		if len(outer.words) == 0 || plainSettings[outer.words[0]] == nil {
			return fmt.Errorf("rndc's file has the statement %q", outer.words)
		}
		for _, inner := range outer.block {
			if len(inner.words) != 2 || !slices.Contains(plainSettings[outer.words[0]], inner.words[0]) {
				return fmt.Errorf("%s in rndc's file has a statement of another kind", outer.words[0])
			}
		}
	}
	return nil
}

// errand is rndc on its way.
type errand struct {
	over context.Context // ends when rndc has
	stop context.CancelFunc
	out  string
	err  error
}

// send has rndc reload the zone and does not wait for it. One of an earlier
// publish, whose outcome is known, is ended.
func (p *BindPublisher) send(ctx context.Context) *errand {
	p.recall()
	ctx, stop := context.WithCancel(ctx)
	over, ended := context.WithCancel(context.WithoutCancel(ctx))
	e := &errand{over: over, stop: stop}
	go func() {
		defer ended()
		defer stop()
		e.out, e.err = p.rndc.run(ctx, slices.Concat([]string{"reload", p.name}, p.view)...)
	}()
	p.errand = e
	return e
}

// recall ends the errand that a publish did not have to wait for. It is BIND's
// own rndc, which does nothing but to say one command.
func (p *BindPublisher) recall() {
	if e := p.errand; e != nil {
		e.stop()
		<-e.over.Done()
		p.errand = nil
	}
}

// early waits for the serial while rndc runs, and reports whether it came.
func (w *write) early(e *errand, serial uint32) (answered uint32, came bool) {
	for pause := time.Millisecond; ; pause = min(pause*3/2, 50*time.Millisecond) {
		if answered, err := w.answered(e.over, serial); err == nil {
			return answered, true
		}
		select {
		case <-e.over.Done():
			return 0, false
		case <-time.After(pause):
		}
	}
}
