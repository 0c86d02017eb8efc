# The only entry points. `make` alone says what there is.

CARGO ?= cargo
PREFIX ?= /usr/local
# Where mount(8) looks for helpers.
SBINDIR ?= /sbin
# Where systemd looks for units.
UNITDIR ?= /etc/systemd/system
UNITS = pitfs@.service pitfs-roll@.service pitfs-roll@.timer pitfs-backup@.service pitfs-backup@.timer
DESTDIR ?=
FROM ?= .
SNAP ?= ./snap
RUN_DIR ?= ./.run
CUTS ?= 1000
FAULTS ?= 50
# How long each target of `make fuzz` runs and `make mutate` does, and how long `make soak` does.
SECONDS ?= 60
MINUTES ?= 10
PARTS ?= all
# Where cargo builds, which its environment and its configuration can change.
TARGET_DIR = $(or $(CARGO_TARGET_DIR),$(shell $(CARGO) metadata --format-version 1 --no-deps --offline 2>/dev/null | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'),target)
BIN = $(TARGET_DIR)$(addprefix /,$(CARGO_BUILD_TARGET))/release/pitfs

# Builds for work on pitfs are not optimized, since that takes five times as long; what runs for minutes is.
OPTIMIZED = --config 'profile.dev.package.pitfs.opt-level=1'

.DEFAULT_GOAL := help
.PHONY: help build symbols run stop check test rings power faults fuzz mutate deny soak conformance bench needs needs-test man install uninstall clean

help:
	@echo 'make build    a release binary, $(BIN)'
	@echo 'make symbols  what debuggers need of it, in a file of its own'
	@echo 'make run      store a directory (FROM=DIR) and show it (SNAP=DIR); `make stop` ends it'
	@echo 'make check    everything that must pass'
	@echo 'make rings    the tests that mount, with requests through the kernel'"'"'s rings; as root. TESTS="mount opens" for some'
	@echo 'make power    CUTS=$(CUTS) power cuts under the daemon, and as many of a store in memory'
	@echo 'make faults   each kind of fault of a disk FAULTS=$(FAULTS) times'
	@echo 'make fuzz     hostile bytes for everything that is decoded, SECONDS=$(SECONDS) for each'
	@echo 'make mutate   stores and archives that were damaged or prepared, with commands and a mount on each, for SECONDS=$(SECONDS)'
	@echo 'make deny     licences, versions and sources of what is built in'
	@echo 'make soak     load for MINUTES=$(MINUTES), watched for what grows'
	@echo 'make conformance  public test suites and real programs over pitfs, compared with ext4; 40 minutes, best as root'
	@echo 'make bench    pitfs beside ext4, btrfs and backup programs; an hour, best as root. PARTS="files sync" for a part,'
	@echo '              `make bench PARTS=help` says which there are and what can be set'
	@echo 'make install  to PREFIX=$(PREFIX), with man pages and completions; the mount helper to SBINDIR=$(SBINDIR)'

build:
	$(CARGO) build --release --locked

# What debuggers need of the release binary, in a file of its own; `objcopy` and a debugger are needed for it.
symbols: build
	$(CARGO) build --profile symbols --locked
	sh tests/symbols.sh '$(BIN)' '$(dir $(BIN))../symbols/pitfs'

# Lays out a store from FROM, mounts it at SNAP and takes a snapshot.
run: build needs
	@BIN='$(BIN)' FROM='$(FROM)' SNAP='$(SNAP)' RUN_DIR='$(RUN_DIR)' sh tests/run.sh start

stop:
	@BIN='$(BIN)' SNAP='$(SNAP)' RUN_DIR='$(RUN_DIR)' sh tests/run.sh stop

# What building and mounting need of the system; installed when root, named when not.
needs:
	@sh tests/needs.sh

# And what single tests need, as far as it can be had.
needs-test:
	@sh tests/needs.sh test

check: needs-test
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(CARGO) test $(OPTIMIZED) --locked --lib --bins --tests
	$(MAKE) run RUN_DIR=target/check-run SNAP=target/check-snap
	$(MAKE) stop RUN_DIR=target/check-run SNAP=target/check-snap

test: needs-test
	$(CARGO) test $(OPTIMIZED) --locked --lib --bins --tests

# Six minutes for a thousand. PITFS_SEED=n begins elsewhere.
power: needs
	PITFS_CUTS=$(CUTS) $(CARGO) test $(OPTIMIZED) --locked --test power --test store -- --nocapture power_cut

faults: needs
	PITFS_FAULTS=$(FAULTS) $(CARGO) test $(OPTIMIZED) --locked --test faults

fuzz: needs
	BOLERO_RANDOM_TEST_TIME_MS=$(SECONDS)000 $(CARGO) test $(OPTIMIZED) --locked --test fuzz -- --test-threads 1

# With overflow checks, as all tests. PITFS_SEED=n begins elsewhere.
mutate: needs
	PITFS_MUTATE_SECONDS=$(SECONDS) $(CARGO) test $(OPTIMIZED) --locked --test mutate -- --nocapture

# Licences, versions and sources of what pitfs is built from, as deny.toml has them; what is known to be wrong with any of it, where
# there is a database of that. `make check` looks at licences, sources and duplicates by itself.
deny:
	@command -v cargo-deny >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check licenses bans sources
	@$(CARGO) deny check --disable-fetch advisories || echo 'make deny: no database of advisories is here, or it names what is above'

# The tests that mount, with requests through the kernel's rings.
rings: needs-test
	CARGO='$(CARGO)' sh tests/rings.sh $(TESTS)

soak: needs
	PITFS_MINUTES=$(MINUTES) $(CARGO) test $(OPTIMIZED) --locked --test soak -- --ignored --nocapture

# pjdfstest, fsx, stress-ng, fio, and git, cargo, SQLite, PostgreSQL and ext4 in live. What can be set is in the script.
conformance: build needs
	@BIN='$(BIN)' CARGO='$(CARGO)' bash tests/conformance/run.sh

# ROUNDS, MB, SCALE, DIR, OUT and TREE reach it as they are given to make.
bench: build needs
	@$(CARGO) bench --quiet --locked --bench bench -- $(PARTS)

install: build
	install -D -m 755 '$(BIN)' $(DESTDIR)$(PREFIX)/bin/pitfs
	install -d $(DESTDIR)$(SBINDIR)
	sed 's|/usr/local/bin|$(PREFIX)/bin|' mount-helper/mount.pitfs > $(DESTDIR)$(SBINDIR)/mount.pitfs
	chmod 755 $(DESTDIR)$(SBINDIR)/mount.pitfs
	install -m 755 mount-helper/mount.fuse.pitfs $(DESTDIR)$(SBINDIR)/mount.fuse.pitfs
	install -d $(DESTDIR)$(UNITDIR)
	for unit in $(UNITS); do sed 's|/usr/local/bin|$(PREFIX)/bin|' systemd/$$unit > $(DESTDIR)$(UNITDIR)/$$unit && chmod 644 $(DESTDIR)$(UNITDIR)/$$unit || exit 1; done
	for page in man/*.[78]; do install -D -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}; done
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	'$(BIN)' completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/pitfs
	'$(BIN)' completions zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_pitfs
	'$(BIN)' completions fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/pitfs.fish

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/pitfs $(DESTDIR)$(SBINDIR)/mount.pitfs $(DESTDIR)$(SBINDIR)/mount.fuse.pitfs
	rm -f $(addprefix $(DESTDIR)$(UNITDIR)/,$(UNITS))
	rm -f $(DESTDIR)$(PREFIX)/share/man/man8/pitfs.8 $(DESTDIR)$(PREFIX)/share/man/man8/mount.pitfs.8 $(DESTDIR)$(PREFIX)/share/man/man7/pitfs.7
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/pitfs $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_pitfs $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/pitfs.fish

clean:
	$(CARGO) clean
