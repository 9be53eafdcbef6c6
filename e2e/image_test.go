package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/api/client"
	"upkeep/internal/api/wire"
	"upkeep/internal/testkit"
)

// imageServer is a control, and a server with images whose agent runs as root, in its
// two processes.
type imageServer struct {
	t      *testing.T
	dir    string
	agent  *testkit.Process
	listen string
}

func newImageServer(t *testing.T) *imageServer {
	t.Helper()
	testkit.NeedRoot(t)
	testkit.Need(t, "mke2fs", "e2fsck", "resize2fs")
	s := &imageServer{t: t, dir: t.TempDir(), listen: fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))}
	for _, path := range []string{filepath.Dir(s.dir), s.dir} {
		s.must(os.Chmod(path, 0o755))
	}
	s.must(os.Mkdir(s.path("images"), 0o755))
	policy := "kinds: [image.list, image.create, image.grow, image.check, image.pack, image.unpack]\nimages: {roots: {vms: " + s.path("images") + "}, max_size: 8G}\nfront: nobody\n"
	s.must(os.WriteFile(s.path("policy.yaml"), []byte(policy), 0o600))
	testkit.Command{Argv: []string{upkeepProgram(t), "serve", "--data", s.path("control"), "--http", "", "--agents", s.listen}, Dir: "/"}.Start(t)
	testkit.Eventually(t, time.Minute, func() (bool, string) {
		_, err := s.api().Servers(t.Context())
		return err == nil, fmt.Sprint(err)
	})
	var invitation wire.Invitation
	s.must(json.Unmarshal([]byte(s.says("server", "add", "vm1", "--role", "images", "-o", "json", "--data", s.path("control"))), &invitation))
	s.says("join", "https://"+s.listen, invitation.Token, "--data", s.path("agent"))
	s.start()
	return s
}

func (s *imageServer) start() {
	s.t.Helper()
	s.agent = testkit.Command{Argv: []string{upkeepProgram(s.t), "agent", "--data", s.path("agent"), "--policy", s.path("policy.yaml")}, Dir: "/"}.Start(s.t)
}

func (s *imageServer) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *imageServer) path(name string) string { return filepath.Join(s.dir, name) }

func (s *imageServer) api() *client.Client { return client.OverSocket(s.path("control")) }

// says runs a verb that must succeed, and returns what it prints.
func (s *imageServer) says(verb ...string) string {
	s.t.Helper()
	cmd := exec.Command(upkeepProgram(s.t), verb...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		s.t.Fatalf("upkeep %s: %v\n%s%s\nthe agent:\n%s", strings.Join(verb, " "), err, out.String(), said.String(), s.agent.Log())
	}
	return out.String()
}

// job has a job done as an operator does.
func (s *imageServer) job(kind, payload string) string {
	s.t.Helper()
	return s.says("job", "run", kind, "--server", "vm1", "--payload", payload, "--wait", "--data", s.path("control"))
}

// images are the files in the root of images.
func (s *imageServer) images() (names []string) {
	s.t.Helper()
	entries, err := os.ReadDir(s.path("images"))
	s.must(err)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// TestImageJobs makes, grows, packs and unpacks an image on a server, by control and
// the agent there; lists what there is; and cancels a job that is under way.
func TestImageJobs(t *testing.T) {
	t.Parallel()
	s := newImageServer(t)
	s.job("image.create", `{"root":"vms","path":"web1.img","size":"64M","fs":"ext4","label":"web1"}`)
	s.job("image.grow", `{"root":"vms","path":"web1.img","to":"96M"}`)
	s.job("image.check", `{"root":"vms","path":"web1.img"}`)
	if text := s.job("image.pack", `{"root":"vms","path":"web1.zst","source":{"root":"vms","path":"web1.img"}}`); !strings.Contains(text, `"holds":100663296`) {
		t.Errorf("packing tells %s", text)
	}
	s.job("image.unpack", `{"root":"vms","path":"web2.img","source":{"root":"vms","path":"web1.zst"}}`)
	for _, name := range []string{"web1.img", "web2.img"} {
		s.says("image", "check", s.path("images/"+name))
	}
	list := s.says("server", "images", "vm1", "--data", s.path("control"))
	for _, want := range []string{"vms/web1.img", "vms/web1.zst", "vms/web2.img", "ext4 web1", "packed, of 96M"} {
		if !strings.Contains(list, want) {
			t.Errorf("%q is not in\n%s", want, list)
		}
	}
	s.cancels()
	if got, want := s.images(), []string{"big.img", "web1.img", "web1.zst", "web2.img"}; !slices.Equal(got, want) {
		t.Errorf("there are %q", got)
	}
	// Killed and started again, the agent goes on.
	s.agent.Kill()
	s.start()
	s.job("image.grow", `{"root":"vms","path":"web2.img","to":"128M"}`)
	s.says("image", "check", s.path("images/web2.img"))
}

// cancels packs an image that is large enough for that to take a while, and cancels
// it when the agent says how far it has come.
func (s *imageServer) cancels() {
	s.t.Helper()
	block := make([]byte, 1<<20)
	_, err := rand.Read(block)
	s.must(err)
	file, err := os.Create(s.path("images/big.img"))
	s.must(err)
	for range 512 {
		_, err := file.Write(block)
		s.must(err)
	}
	s.must(file.Close())
	const payload = `{"root":"vms","path":"big.zst","source":{"root":"vms","path":"big.img"}}`
	for try := range 10 {
		ctx, stop := context.WithTimeout(s.t.Context(), 2*time.Minute)
		made, err := s.api().RunJob(ctx, wire.NewJob{Kind: upkeep.JobImagePack, Server: "vm1", Payload: json.RawMessage(payload)})
		s.must(err)
		end := s.cancelWhenUnderWay(ctx, made.ID)
		stop()
		switch end.State {
		case upkeep.JobCancelled:
			return
		case upkeep.JobDone: // it was faster
			s.must(os.Remove(s.path("images/big.zst")))
		default:
			s.t.Fatalf("try %d: %+v\nthe agent:\n%s", try, end, s.agent.Log())
		}
	}
	s.t.Error("it could not be cancelled before it was done")
}

func (s *imageServer) cancelWhenUnderWay(ctx context.Context, id int64) (end upkeep.Job) {
	s.t.Helper()
	ended := errors.New("it has ended")
	look := func(job upkeep.Job) error {
		switch {
		case job.ID != id:
		case job.State.Ended():
			end = job
			return ended
		case job.Progress == "packing":
			_, _ = s.api().ChangeJob(ctx, id, "cancel") // which may be too late
		}
		return nil
	}
	err := s.api().FollowJobs(ctx, wire.JobFilter{}, func() error {
		job, err := s.api().Job(ctx, id)
		if err != nil {
			return err
		}
		return look(job)
	}, look)
	if !errors.Is(err, ended) {
		s.t.Fatalf("following job %d: %v", id, err)
	}
	return end
}
