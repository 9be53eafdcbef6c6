package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"upkeep"
	"upkeep/internal/api/wire"
)

const (
	filesHelp = "`file` of YAML documents, a folder of *.yaml and *.yml files, or - for standard input; may be repeated"
	filesText = "a file of YAML documents, a folder of *.yaml and *.yml files, or - for standard input"
)

// sources reads the texts that -f names. Relative paths inside the documents
// count from the file's own folder, or from here for standard input.
func (a *app) sources(files []string) ([]wire.Source, error) {
	if len(files) == 0 {
		return nil, &usageError{err: fmt.Errorf("-f is missing: what to read"), hint: "-f FILE, or -f - for standard input"}
	}
	var sources []wire.Source
	for _, file := range files {
		some, err := a.source(file)
		if err != nil {
			return nil, err
		}
		sources = append(sources, some...)
	}
	return sources, nil
}

func (a *app) source(file string) ([]wire.Source, error) {
	if file == "-" {
		here, err := os.Getwd()
		if err != nil {
			return nil, err
		}
		text, err := readAtMost(a.in, "standard input")
		return []wire.Source{{File: "stdin", Base: here, Text: text}}, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, upkeep.WithHint(fmt.Errorf("reading documents: %w", err), "-f takes "+filesText)
	}
	names := []string{file}
	if info.IsDir() {
		if names, err = documentsIn(file); err != nil {
			return nil, err
		}
	}
	var sources []wire.Source
	for _, name := range names {
		full, err := filepath.Abs(name)
		if err != nil {
			return nil, err
		}
		opened, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("reading documents: %w", err)
		}
		text, err := readAtMost(opened, name)
		opened.Close()
		if err != nil {
			return nil, err
		}
		sources = append(sources, wire.Source{File: name, Base: filepath.Dir(full), Text: text})
	}
	return sources, nil
}

func documentsIn(folder string) ([]string, error) {
	var names []string
	for _, pattern := range []string{"*.yaml", "*.yml"} {
		found, err := filepath.Glob(filepath.Join(folder, pattern))
		if err != nil {
			return nil, fmt.Errorf("reading folder %s: %w", folder, err)
		}
		names = append(names, found...)
	}
	if len(names) == 0 {
		return nil, upkeep.WithHint(fmt.Errorf("folder %s holds no *.yaml or *.yml file: %w", folder, upkeep.ErrNotFound), "folders inside it are not searched")
	}
	slices.Sort(names)
	return names, nil
}

func readAtMost(r io.Reader, name string) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, wire.MaxBody+1))
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", name, err)
	}
	if len(text) > wire.MaxBody {
		return "", &upkeep.InvalidError{Fields: []upkeep.FieldError{{Rule: fmt.Sprintf("%s is larger than %d MiB, the most that is read", name, wire.MaxBody>>20)}}}
	}
	return string(text), nil
}
