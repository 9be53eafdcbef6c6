package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"upkeep/internal/testkit"
)

// caddy is the web server whose configuration is changed over its API. It does
// the serving too, so what it spends for that cannot be told apart.
type caddy struct {
	dir         string
	port, admin int
	process     *testkit.Process
	routes      []any
	loads       int
}

func startCaddy(_ options, dir string) (stage, error) {
	c := &caddy{dir: dir, port: freePort(), admin: freePort()}
	config, err := json.Marshal(c.config())
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "caddy.json")
	if err := os.WriteFile(file, config, 0o644); err != nil {
		return nil, err
	}
	c.process, err = testkit.Command{Argv: []string{"caddy", "run", "--config", file}, Env: []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}}.Launch()
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(30 * time.Second); ; <-time.After(20 * time.Millisecond) {
		response, err := http.Get(c.url())
		if err == nil {
			return c, response.Body.Close()
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("caddy does not start: %s", c.process.Log())
		}
	}
}

func (c *caddy) config() map[string]any {
	rest := map[string]any{"handle": []any{map[string]any{"handler": "static_response", "status_code": "421"}}}
	routes := append(append([]any{}, c.routes...), rest)
	return map[string]any{
		"admin":   map[string]any{"listen": fmt.Sprintf("127.0.0.1:%d", c.admin), "config": map[string]any{"persist": false}},
		"logging": map[string]any{"logs": map[string]any{"default": map[string]any{"level": "ERROR"}}},
		"apps": map[string]any{"http": map[string]any{"servers": map[string]any{"bench": map[string]any{
			"listen": []string{fmt.Sprintf("127.0.0.1:%d", c.port)}, "routes": routes, "automatic_https": map[string]any{"disable": true},
		}}}},
	}
}

func (c *caddy) route(name string) map[string]any {
	return map[string]any{
		"match":    []any{map[string]any{"host": []string{name, "www." + name}}},
		"handle":   []any{map[string]any{"handler": "file_server", "root": filepath.Join(c.dir, "htdocs", name)}},
		"terminal": true,
	}
}

// add puts one route in front by its own call, and loads everything for many.
func (c *caddy) add(names []string) error {
	for _, name := range names {
		if err := os.MkdirAll(filepath.Join(c.dir, "htdocs", name), 0o755); err != nil {
			return err
		}
	}
	for _, name := range names {
		c.routes = append([]any{c.route(name)}, c.routes...)
	}
	c.loads++
	if len(names) == 1 {
		return c.call(http.MethodPut, "/config/apps/http/servers/bench/routes/0", c.routes[0])
	}
	return c.call(http.MethodPost, "/load", c.config())
}

func (c *caddy) call(method, path string, body any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequest(method, fmt.Sprintf("http://127.0.0.1:%d%s", c.admin, path), bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(response.Body)
		return fmt.Errorf("caddy: %s: %s", response.Status, answer)
	}
	return nil
}

func (c *caddy) regenerate([]string) error {
	c.loads++
	// An equal configuration is not loaded; a changed one is.
	c.routes = append([]any{c.route("changed.test")}, c.routes...)
	return c.call(http.MethodPost, "/load", c.config())
}

func (c *caddy) settle([]string) error { return c.call(http.MethodPost, "/load", c.config()) }

func (c *caddy) url() string          { return fmt.Sprintf("http://127.0.0.1:%d/", c.port) }
func (c *caddy) spent() time.Duration { return processorTime(c.process.PID()) }
func (c *caddy) reloads() int         { return c.loads }
func (c *caddy) stop()                { c.process.Kill() }
