package declare

import (
	"bytes"
	"reflect"
	"testing"
)

const example = `kind: zone
name: example.test
publishers:
  - {type: transfer, secondaries: ["127.0.0.1:5302"], tsig: keyfile}     # all but type optional
  - {type: bind, zone_file: db.example.test, include_dir: dir, rndc: ["rndc", "-c", "rndc.conf"]}
  - {type: update, server: "127.0.0.1:53", key: keyfile}
servers: ["127.0.0.1:5301", "127.0.0.1:5302"]      # asked after each publish
records: [{name: ns1, type: A, value: 192.0.2.53}, {name: "@", type: NS, value: ns1}]   # what transfer serves beside the pools
---
kind: pool
name: web
zones: [example.test]
records: ["@", "*", "www"]
ttl: 60s
members:
  - 127.0.0.11
  - {address: 127.0.0.12, check_address: 127.0.0.12, backup: false}
check: {type: tcp, port: 8081, interval: 1s, timeout: 500ms}          # adaptive; or fall: 3, ok_reset: 3, rise: 5
policy: {fail_open: all, healthy_fraction: 0.5, anchors: ["127.0.0.1"]}
`

func TestReadExample(t *testing.T) {
	objects, err := Read("x.yaml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Write(&out, objects...); err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
	again, err := Read("y.yaml", out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(objects, again) {
		t.Errorf("%+v\n%+v", objects, again)
	}
}
