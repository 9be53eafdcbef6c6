package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"upkeep"
	"upkeep/internal/declare"
	"upkeep/internal/link"
	"upkeep/internal/safefs"
)

// agentConfig is the file that says where an agent has its things. The join writes
// one. Flags go before it; what neither says is at its default.
type agentConfig struct {
	// Control is where control is, as https://HOST:PORT, when that is no longer
	// where it was at the join. It has to be the same control: it is known by its
	// certificate, not by its address.
	Control string `json:"control,omitempty"`
	// Data is the folder of the identity and of what the agent remembers.
	Data string `json:"data,omitempty"`
	// Policy is the path of the policy.
	Policy string `json:"policy,omitempty"`
	// Log is the level from which on is logged.
	Log string `json:"log,omitempty"`
}

// defaultAgentConfig is where the configuration of an agent is when not told.
const defaultAgentConfig = "/etc/upkeep/agent.yaml"

// maxAgentConfig bounds the file, in bytes.
const maxAgentConfig = 64 << 10

// Validate returns every rule that the configuration breaks.
func (c agentConfig) Validate() []upkeep.FieldError {
	var broken []upkeep.FieldError
	if c.Control != "" {
		if err := link.CheckControl(c.Control); err != nil {
			broken = append(broken, upkeep.FieldError{Field: "control", Value: c.Control, Rule: "must be https://HOST:PORT"})
		}
	}
	for _, path := range []struct{ field, value string }{{"data", c.Data}, {"policy", c.Policy}} {
		if path.value != "" && (!filepath.IsAbs(path.value) || filepath.Clean(path.value) != path.value) {
			broken = append(broken, upkeep.FieldError{Field: path.field, Value: path.value, Rule: "must be an absolute path, without . and .. and double slashes"})
		}
	}
	if c.Log != "" && new(slog.LevelVar).UnmarshalText([]byte(c.Log)) != nil {
		broken = append(broken, upkeep.FieldError{Field: "log", Value: c.Log, Rule: "must be debug, info, warn or error"})
	}
	return broken
}

// loadAgentConfig reads a configuration. As root it must be a file that nobody else
// can change: it says which policy holds.
func loadAgentConfig(path string) (agentConfig, error) {
	text, err := readAgentConfig(path)
	if err != nil {
		err = fmt.Errorf("reading the agent's configuration: %w", err)
		if errors.Is(err, upkeep.ErrRefused) {
			err = upkeep.WithHint(err, "it and the folders above it must be root's, writable by root alone, and no symbolic links")
		}
		return agentConfig{}, err
	}
	return declare.Settings[agentConfig](path, text)
}

func readAgentConfig(path string) ([]byte, error) {
	if os.Geteuid() == 0 {
		return safefs.ReadTrusted(path, maxAgentConfig)
	}
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxAgentConfig {
		err = fmt.Errorf("%s has more than %d bytes", path, maxAgentConfig)
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// joinConfig reports whether a join has to write a configuration. One that is
// there is kept, and must not lead elsewhere.
func joinConfig(path string, want agentConfig) (write bool, err error) {
	have, err := loadAgentConfig(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil:
		return false, err
	case have.Control != "" && have.Control != want.Control:
		return false, upkeep.WithHint(fmt.Errorf("%s has control: %s, and this join is with %s: %w", path, have.Control, want.Control, upkeep.ErrConflict),
			"change that line or remove the file, then join")
	case have.Data != "" && have.Data != want.Data:
		return false, upkeep.WithHint(fmt.Errorf("%s has data: %s, and this join is for %s: %w", path, have.Data, want.Data, upkeep.ErrConflict),
			"change that line, remove the file, or join with --data "+have.Data)
	}
	return false, nil
}

// write writes the configuration to a path, for its owner to read and change.
func (c agentConfig) write(path string) error {
	text := fmt.Sprintf("# Where the agent on this server has its things; see upkeep agent --help.\ncontrol: %s\ndata: %q\npolicy: %q\n", c.Control, c.Data, c.Policy)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	dir, err := safefs.OpenOwn(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	_, err = dir.WriteFile(filepath.Base(path), []byte(text), safefs.Attributes{UID: os.Geteuid(), GID: os.Getegid(), Mode: 0o644})
	return err
}
