// Command console measures the pages of a full upkeep: how long each takes at a
// thousand pools, ten thousand sites and a million jobs, on SQLite and on
// PostgreSQL, and what a thousand open pages cost that follow what happens.
//
// It needs the programs sqlite3, and for PostgreSQL psql and initdb, and says so
// where they are not.
//
// With several programs each is measured in its turn, over the same data.
//
//	go run ./bench/console [-database sqlite|postgres] [-times 30] [-live 1000] [-upkeep PROGRAM,...]
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/testkit"
)

func main() {
	b := bench{}
	flag.StringVar(&b.database, "database", "sqlite", "sqlite, or postgres for a server of its own")
	flag.IntVar(&b.pools, "pools", 1000, "how many, of three members each")
	flag.IntVar(&b.sites, "sites", 10_000, "how many, on two servers each")
	flag.IntVar(&b.jobs, "jobs", 1_000_000, "how many rows, and as many events")
	flag.IntVar(&b.times, "times", 30, "how often each page is asked for; 0 leaves that out")
	flag.IntVar(&b.live, "live", 1000, "how many pages are open; 0 leaves that out")
	flag.DurationVar(&b.length, "for", time.Minute, "how long they are")
	flag.StringVar(&b.program, "upkeep", "", "upkeep programs to run, with commas between; built from this module when left out")
	flag.StringVar(&b.folder, "data", "", "with SQLite, keep the data folder here, and use the one of a run before")
	readers := flag.String("readers", "", "be the open pages of the upkeep at this address")
	flag.Parse()
	run := b.run
	if *readers != "" {
		run = func() error { return read(*readers, os.Stdin) }
	}
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

type bench struct {
	database           string
	pools, sites, jobs int
	times, live        int
	length             time.Duration
	program            string
	secret             string // begins what browsers show
	done               int    // how many things were done

	folder  string
	dir     string
	dsn     string
	server  *testkit.Process
	address string
	control *client.Client
	now     time.Time
}

func (b *bench) run() (err error) {
	b.now = time.Now()
	if b.dir, err = os.MkdirTemp("", "upkeep-console-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }() // nothing of value is in it
	if b.program == "" {
		b.program = filepath.Join(b.dir, "upkeep")
		if output, err := exec.Command("go", "build", "-o", b.program, "upkeep/cmd/upkeep").CombinedOutput(); err != nil {
			return fmt.Errorf("building upkeep: %w\n%s", err, output)
		}
	}
	if err := os.MkdirAll(b.data(), 0o700); err != nil {
		return err
	}
	switch b.database {
	case "sqlite":
		b.dsn = "sqlite:" + filepath.Join(b.data(), "upkeep.db")
	case "postgres":
		server, stop, err := testkit.LaunchPostgres()
		if err != nil {
			return err
		}
		defer stop()
		b.dsn = server.DSN()
	default:
		return fmt.Errorf("-database %q must be sqlite or postgres", b.database)
	}
	// Every member is this machine.
	members, err := net.Listen("tcp", fmt.Sprint(":", port))
	if err != nil {
		return err
	}
	go accept(members)
	if _, err := os.Stat(filepath.Join(b.data(), "filled")); err != nil {
		if err := b.fill(); err != nil {
			return err
		}
	}
	if err := b.browsers(); err != nil {
		return err
	}
	for program := range strings.SplitSeq(b.program, ",") {
		fmt.Printf("\nDatabase: %s; upkeep: %s\n", b.database, program)
		if err := b.measure(program); err != nil {
			return err
		}
	}
	return nil
}

// measure measures one program.
func (b *bench) measure(program string) error {
	if err := b.serve(program); err != nil {
		return err
	}
	defer b.server.Kill()
	if b.times > 0 {
		if err := b.pagesTable(); err != nil {
			return err
		}
	}
	if b.live == 0 {
		return nil
	}
	return b.liveTable()
}

// port is where members are asked.
const port = 47811

func (b *bench) data() string {
	if b.folder != "" {
		return b.folder
	}
	return filepath.Join(b.dir, "data")
}

func accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		_ = conn.Close()
	}
}

// serve runs upkeep, with a user of staff and one of a customer, and waits until
// every member is known.
func (b *bench) serve(program string) error {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b.address = free.Addr().String()
	_ = free.Close()
	argv := []string{program, "serve", "--data", b.data(), "--http", b.address, "--dns", "127.0.0.1:0", "--log", "error"}
	if b.database == "postgres" {
		argv = append(argv, "--db", b.dsn)
	}
	if b.server, err = (testkit.Command{Argv: argv, Dir: b.dir}).Launch(); err != nil {
		return err
	}
	b.control = client.OverSocket(b.data())
	ctx := context.Background()
	seen := ""
	for end := time.Now().Add(5 * time.Minute); ; <-time.After(time.Second) {
		pools, err := b.control.Pools(ctx)
		unknown := 0
		for _, p := range pools {
			for _, m := range p.Members {
				if m.Verdict == upkeep.Unknown {
					unknown++
				}
			}
		}
		if err == nil && unknown == 0 && len(pools) == b.pools {
			break
		}
		seen = fmt.Sprintf("%d pools, %d members not known yet, %v", len(pools), unknown, err)
		if time.Now().After(end) || !b.server.Running() {
			return fmt.Errorf("waiting for upkeep: %s\n%s", seen, b.server.Log())
		}
	}
	known, err := b.control.Users(ctx)
	if err != nil || slices.ContainsFunc(known, func(u upkeep.User) bool { return u.Name == "ada" }) {
		return err
	}
	for _, user := range []wire.NewUser{{Name: "ada", Role: upkeep.UserStaff, Password: password}, {Name: "eve", Role: upkeep.UserCustomer, Account: account(7), Password: password}} {
		if err := b.control.AddUser(ctx, user); err != nil {
			return err
		}
	}
	return nil
}

const password = "a long enough password"
