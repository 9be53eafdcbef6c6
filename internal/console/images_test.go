package console

import (
	"fmt"
	"html"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"upkeep"
	"upkeep/internal/task"
)

// Every kind of work on images that can be asked for has a page.
func TestEveryImageJobHasAPage(t *testing.T) {
	offered := []string{upkeep.JobImageList} // a button
	for _, v := range imageVerbs {
		offered = append(offered, v.kind)
	}
	for _, kind := range task.Kinds() {
		if strings.HasPrefix(kind, "image.") && !slices.Contains(offered, kind) {
			t.Errorf("there is no page for %s", kind)
		}
	}
}

// Unpacking is offered for what jobs unpack, and all else for raw images.
func TestVerbsSuitWhatFilesAre(t *testing.T) {
	for format, unpacks := range map[string]bool{"raw": false, "packed": true, "gzip": true, "xz": true, "zstd": true, "qcow2": false} {
		for _, v := range imageVerbs {
			if got, want := v.suits(upkeep.ImageFile{Format: format}), v.name == "unpack" && unpacks || v.name != "unpack" && format == "raw"; got != want {
				t.Errorf("%s of a %s file is offered: %v", v.name, format, got)
			}
		}
	}
}

// What is typed becomes the payload that control and agents read.
func TestWorkOnImages(t *testing.T) {
	about := "about.root=vms&about.path=web1.img&"
	for _, tt := range []struct{ verb, form, want string }{
		{"create", "root=vms&path=web2.img&size=1.5G&full=on&fs=ext4&profile=small&inodes=1000&label=web2", `{"fs":"ext4","full":true,"inodes":1000,"label":"web2","path":"web2.img","profile":"small","root":"vms","size":1610612736}`},
		{"grow", about + "to=8G&partition=1", `{"partition":1,"path":"web1.img","root":"vms","to":8589934592}`},
		{"shrink", about + "min=on", `{"min":true,"path":"web1.img","root":"vms"}`},
		{"check", about + "repair=on", `{"path":"web1.img","repair":true,"root":"vms"}`},
		{"mkfs", about + "fs=xfs&force=on", `{"force":true,"fs":"xfs","path":"web1.img","root":"vms"}`},
		{"copy", about + "root=vms&path=new.img&verify=on&leave_out=on", `{"leave_out":true,"path":"new.img","root":"vms","source":{"path":"web1.img","root":"vms"},"verify":true}`},
		{"clone", about + "root=vms&path=new.img&new_ids=on", `{"new_ids":true,"path":"new.img","root":"vms","source":{"path":"web1.img","root":"vms"}}`},
		{"pack", about + "root=vms&path=web1.pack&all=on", `{"all":true,"path":"web1.pack","root":"vms","source":{"path":"web1.img","root":"vms"}}`},
		{"unpack", "about.root=vms&about.path=web1.upkeep&root=vms&path=new.img&as=sparse", `{"as":"sparse","path":"new.img","root":"vms","source":{"path":"web1.upkeep","root":"vms"}}`},
	} {
		h := twoCustomers()
		a := house(t, typical(), h)
		if w := ask(a.Public(), "ada", "POST", "/images/vm1/"+tt.verb, tt.form+"&do=preview"); w.Code != 200 || !strings.Contains(w.Body.String(), "What would be done") || len(h.did()) > 0 {
			t.Errorf("%s: the plan answers %d, done is %q: %s", tt.verb, w.Code, h.did(), w.Body)
		}
		w := ask(a.Public(), "ada", "POST", "/images/vm1/"+tt.verb, tt.form+"&do=run")
		if want := fmt.Sprintf("user ada runs image.%s on vm1 %s", tt.verb, tt.want); w.Code != 303 || w.Header().Get("Location") != "/jobs/3" || !slices.Equal(h.did(), []string{want}) {
			t.Errorf("%s answers %d, done is %q, want %q", tt.verb, w.Code, h.did(), want)
		}
	}
}

// What is wrong is said beside its field, what was typed stays, and nothing is done.
func TestFormOfAnImage(t *testing.T) {
	h := twoCustomers()
	a := house(t, typical(), h)
	form := url.Values{"root": {"vms"}, "path": {"../etc/<b>x"}, "size": {"much"}, "inodes": {"few"}, "do": {"run"}}
	for range 2 { // first what cannot be read, then what breaks a rule
		w := ask(a.Public(), "ada", "POST", "/images/vm1/create", form.Encode())
		body := html.UnescapeString(w.Body.String())
		faults := strings.Count(body, `class="fault"`)
		if want := map[string]int{"much": 2, "1G": 1}[form.Get("size")]; w.Code != 422 || faults != want || !strings.Contains(body, `value="../etc/<b>x"`) || strings.Contains(w.Body.String(), "<b>x") {
			t.Errorf("with size %s it answers %d with %d faults: %s", form.Get("size"), w.Code, faults, body)
		}
		form.Set("size", "1G")
		form.Set("inodes", "")
	}
	for _, path := range []string{"/images/vm1/grow?root=vms&path=no.img", "/images/vm2/grow?root=vms&path=web1.img", "/images/vm1/burn?root=vms&path=web1.img", "/images/vm1/image?root=vms&path="} {
		if w := ask(a.Public(), "ada", "GET", path, ""); w.Code != 404 {
			t.Errorf("%s answers %d", path, w.Code)
		}
	}
	if done := h.did(); len(done) > 0 {
		t.Errorf("done is %q", done)
	}
}

func TestImagePages(t *testing.T) {
	h := twoCustomers()
	h.jobs = append(h.jobs, upkeep.Job{ID: 9, Server: "vm1", Kind: upkeep.JobImageGrow, Object: "image/vms/old/mail.img", State: upkeep.JobRunning, Progress: "copying", Percent: 40, Created: past(time.Minute)},
		upkeep.Job{ID: 10, Server: "vm1", Kind: upkeep.JobImageCheck, Object: "image/vms/web1.img", State: upkeep.JobDone, Created: past(time.Minute), Finished: past(time.Second)})
	a := house(t, typical(), h)
	for path, wants := range map[string][]string{
		"/images":           {"web1.img", "1G of 4G, sparse", `width="25"`, "qemu (pid 4711) has it open", "unfinished: shrink", "packed, of 4G", "Something was done since", "copying", "old/mail.img"},
		"/images?q=WEB1.up": {"web1.upkeep"},
		"/images/vm1/image?root=vms&path=web1.img":        {"/images/vm1/grow?", "/images/vm1/pack?", "ext4", "900M", ">10</a> image.check"},
		"/images/vm1/image?root=vms&path=web1.upkeep":     {"/images/vm1/unpack?"},
		"/images/vm1/shrink?root=vms&path=old%2Fmail.img": {"It is in use: qemu (pid 4711) has it open", "It is unfinished: shrink."},
		"/images/vm1/create":                              {`name="root" value="vms"`},
		"/jobs/9":                                         {"/images/vm1/image?path=old%2Fmail.img&root=vms", "Give it up", "40 %"},
	} {
		w := ask(a.Public(), "ada", "GET", path, "")
		body := html.UnescapeString(w.Body.String())
		for _, want := range wants {
			if w.Code != 200 || !strings.Contains(body, want) {
				t.Errorf("%s answers %d and has no %q: %s", path, w.Code, want, body)
			}
		}
	}
	if body := ask(a.Public(), "ada", "GET", "/images/vm1/image?root=vms&path=web1.upkeep", "").Body.String(); strings.Contains(body, "/images/vm1/grow?") {
		t.Error("a packed file is offered to be grown")
	}
	if body := ask(a.Public(), "rob", "GET", "/images", "").Body.String(); strings.Contains(body, "/create") {
		t.Error("who may only read is offered to make an image")
	}
	if w := ask(a.Public(), "ada", "POST", "/images/look", ""); w.Code != 303 || !slices.Equal(h.did(), []string{"user ada runs image.list on vm1 "}) {
		t.Errorf("asking anew answers %d, done is %q", w.Code, h.did())
	}
}
