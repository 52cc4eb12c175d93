// Package browsertest runs the page and the npm package in real browsers. The suite
// is itself a page (js/test): any browser that can open an address can take it, and
// sends back what it found. The package has only tests.
package browsertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A browser is a way to open an address without a screen.
type browser struct {
	name     string   // of the subtests
	programs []string // the first one that is installed is taken
	install  string   // the Debian package
	args     func(profile, url string) []string
	slow     bool
}

// patience is how long a page may say nothing: longer than any of the suite's tests may take, see js/test/suite.js. A page
// that the system has ended, for want of memory, says nothing more.
func (b browser) patience() time.Duration {
	switch {
	case os.Getenv("PMP_CHECKPOINT") != "":
		return 30 * time.Minute
	case b.slow:
		return 20 * time.Minute
	}
	return 10 * time.Minute
}

var chromium = browser{
	name:     "chromium",
	programs: []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"},
	install:  "chromium",
	args: func(profile, url string) []string {
		return append(chromiumFlags(profile), url)
	},
}

var firefox = browser{
	name:     "firefox",
	programs: []string{"firefox-esr", "firefox"},
	install:  "firefox-esr",
	args: func(profile, url string) []string {
		return []string{"--headless", "--no-remote", "--profile", profile, url}
	},
}

// chromiumFlags keep Chromium off the network, off the user's own profile and off a real camera. It runs as root in
// containers, where its sandbox does not work.
func chromiumFlags(profile string) []string {
	return []string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-dev-shm-usage", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--user-data-dir=" + profile}
}

// path finds the browser's program, or says what to install.
func (b browser) path() (string, error) {
	for _, p := range b.programs {
		if found, err := exec.LookPath(p); err == nil {
			return found, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: apt-get install %s", b.name, b.install)
}

// start opens url with a profile and a home of its own, in a process group of its own. Stop ends
// the browser and everything that it started, and returns the end of what it printed.
func (b browser) start(url string, extra ...*os.File) (group int, stop func() string, err error) {
	program, err := b.path()
	if err != nil {
		return 0, nil, err
	}
	home, err := os.MkdirTemp("", "pmp-"+b.name+"-")
	if err != nil {
		return 0, nil, err
	}
	profile := filepath.Join(home, "profile")
	if err := os.Mkdir(profile, 0o700); err != nil {
		return 0, nil, err
	}
	log, err := os.Create(filepath.Join(home, "log"))
	if err != nil {
		return 0, nil, err
	}
	cmd := exec.Command(program, b.args(profile, url)...)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home, "MOZ_CRASHREPORTER_DISABLE=1")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = extra
	// A browser is many processes; a group of its own lets all of them be ended together.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	return cmd.Process.Pid, func() string {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(3 * time.Second):
		}
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-done
		log.Close()
		text, _ := os.ReadFile(log.Name())
		os.RemoveAll(home)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		return strings.Join(lines[max(0, len(lines)-20):], "\n")
	}, nil
}
