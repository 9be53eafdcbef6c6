package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"upkeep/internal/testkit"
)

//go:embed article.php
var articleScript []byte

// article is the PHP script and its tables.
type article struct {
	*apache
	script string
	db     *testkit.Process
	env    []string
	mu     sync.Mutex
	used   time.Duration
	runs   atomic.Int32 // of the script, now
}

const articleTables = `CREATE DATABASE upkeep; USE upkeep;
CREATE TABLE upkeep (
 id bigint(20) NOT NULL auto_increment, uid int(11) NOT NULL default '0', date int(11) NOT NULL default '0',
 completed int(11) NOT NULL default '0', status varchar(30) NOT NULL, type varchar(30) NOT NULL, data longtext NOT NULL, PRIMARY KEY (id));
CREATE TABLE virtual_hosts (
 id int(11) NOT NULL auto_increment, date int(11) NOT NULL, user varchar(255) NOT NULL, yuid int(11) NOT NULL, appid int(11) NOT NULL default 0,
 server char(255) NOT NULL, environment_variable char(255) default NULL, subof int(11) NOT NULL, firewall longtext NOT NULL,
 errorpages longtext NOT NULL, PRIMARY KEY (id), KEY yuid (yuid), KEY server (server));
`

func startArticle(_ options, dir string) (stage, error) {
	for _, program := range []string{"php", "mariadbd", "mariadb-install-db"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, err
		}
	}
	a, err := newApache(dir)
	if err != nil {
		return nil, err
	}
	s := &article{apache: a, script: filepath.Join(dir, "article.php")}
	if err := s.prepare(); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *article) prepare() error {
	if err := os.WriteFile(s.script, articleScript, 0o644); err != nil {
		return err
	}
	data, socket := filepath.Join(s.dir, "mysql"), filepath.Join(s.dir, "mysql.sock")
	if output, err := exec.Command("mariadb-install-db", "--no-defaults", "--user=root", "--datadir="+data, "--auth-root-authentication-method=normal").CombinedOutput(); err != nil {
		return fmt.Errorf("mariadb-install-db: %w\n%s", err, output)
	}
	var err error
	s.db, err = testkit.Command{Argv: []string{"mariadbd", "--no-defaults", "--user=root", "--datadir=" + data, "--socket=" + socket, "--skip-networking"}}.Launch()
	if err != nil {
		return err
	}
	for end := time.Now().Add(30 * time.Second); ; <-time.After(50 * time.Millisecond) {
		cmd := exec.Command("mariadb", "--no-defaults", "--socket="+socket, "--user=root", "--execute="+articleTables)
		output, err := cmd.CombinedOutput()
		if err == nil {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("mariadb: %w\n%s", err, output)
		}
	}
	s.env = append(os.Environ(), "BENCH_HOME="+filepath.Join(s.dir, "home"), "BENCH_HOSTED="+s.hosted, "BENCH_SOCKET="+socket,
		"BENCH_RELOAD="+s.graceful(), fmt.Sprintf("BENCH_PORT=%d", s.port))
	return nil
}

func (s *article) php(args ...string) error {
	cmd := exec.Command("php", append([]string{s.script}, args...)...)
	cmd.Env, cmd.Stderr = s.env, os.Stderr
	err := cmd.Run()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return err
}

// user owns the files: a system user that every Debian has.
const user = "games"

// add does what the front end does, then runs the script at once, without the
// five minutes that cron lets pass.
func (s *article) add(names []string) error {
	for len(names) > 0 {
		n := min(len(names), 500)
		if err := s.php(append([]string{"add", user}, names[:n]...)...); err != nil {
			return err
		}
		names = names[n:]
	}
	s.runs.Add(1)
	go func() {
		defer s.runs.Add(-1)
		if err := s.php("run"); err != nil {
			fmt.Fprintln(os.Stderr, "article: the script ended:", err)
		}
	}()
	return nil
}

// working reports whether the script is at it.
func (s *article) working() bool { return s.runs.Load() > 0 }

// fill puts sites there without the hours that the script's reloads would take.
func (s *article) fill(names []string) error {
	graceful := s.env
	s.env = append(append([]string{}, graceful...), "BENCH_RELOAD=true")
	defer func() { s.env = graceful }()
	for some := names; len(some) > 0; {
		n := min(len(some), 500)
		if err := s.php(append([]string{"add", user}, some[:n]...)...); err != nil {
			return err
		}
		some = some[n:]
	}
	if err := s.php("run"); err != nil {
		return err
	}
	return exec.Command("/bin/sh", "-c", s.graceful()).Run()
}

// mkdirs tells no time of the first: the script is at work from its start on.
func (s *article) mkdirs(n int) (first, last time.Duration, err error) {
	if err := s.php("mkdir", fmt.Sprint(n)); err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	err = s.php("run")
	return 0, time.Since(begin), err
}

func (s *article) spent() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

func (s *article) stop() {
	s.apache.stop()
	if s.db != nil {
		s.db.Kill()
	}
}
