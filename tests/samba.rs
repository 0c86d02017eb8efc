//! Previous versions over SMB: Samba's shadow_copy2 finds them with nothing set.

mod mounted;

use mounted::*;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// An smbd of its own, with its children gone with the test.
struct Server {
    child: Child,
    port: u16,
    config: PathBuf,
}

impl Server {
    /// Shares a directory to anybody.
    fn share(directory: &Path, shared: &Path) -> Server {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let own = |name: &str| {
            let path = directory.join(name);
            fs::create_dir_all(&path).unwrap();
            path.display().to_string()
        };
        let config = directory.join("smb.conf");
        let text = format!(
            "[global]\n\
             server role = standalone server\n\
             netbios name = PITFS\n\
             map to guest = Bad User\n\
             guest account = nobody\n\
             smb ports = {port}\n\
             interfaces = lo\n\
             bind interfaces only = yes\n\
             disable netbios = yes\n\
             load printers = no\n\
             disable spoolss = yes\n\
             private dir = {}\n\
             state directory = {}\n\
             cache directory = {}\n\
             lock directory = {}\n\
             pid directory = {}\n\
             ncalrpc dir = {}\n\
             log file = {}/log\n\
             [share]\n\
             path = {}\n\
             guest ok = yes\n\
             read only = no\n\
             vfs objects = shadow_copy2\n",
            own("private"),
            own("state"),
            own("cache"),
            own("lock"),
            own("pid"),
            own("ncalrpc"),
            own("logs"),
            shared.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("smbd");
        command.args(["--foreground", "--no-process-group", "--configfile"]).arg(&config).process_group(0);
        command.env("PATH", search_path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server { child: command.spawn().unwrap(), port, config };
        wait_for("smbd", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        server
    }

    /// Runs commands of smbclient on the share.
    fn run(&self, commands: &str) -> Result<String, String> {
        let mut command = Command::new("smbclient");
        command.args(["//127.0.0.1/share", "-N", "-p", &self.port.to_string(), "-s"]).arg(&self.config);
        command.args(["-t", "20", "-c", commands]).env("TZ", "UTC").stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // `allinfo` says so of each time from before the file.
        let other = text.replace("failed: NT_STATUS_OBJECT_NAME_NOT_FOUND", "");
        let is_absent = commands.starts_with("allinfo") && !other.contains("NT_STATUS_");
        if output.status.success() && (is_absent || !text.contains("NT_STATUS_")) { Ok(text) } else { Err(text) }
    }

    fn ok(&self, commands: &str) -> String {
        self.run(commands).unwrap_or_else(|said| panic!("{commands}: {said}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(group) = rustix::process::Pid::from_raw(self.child.id() as i32) else { return };
        let _gone_already = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
        for _ in 0..200 {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _gone_already = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _gone_already = self.child.wait();
    }
}

/// The `@GMT-…` lines of `allinfo` behind which there is a file, newest first.
fn versions(allinfo: &str) -> Vec<String> {
    let lines: Vec<&str> = allinfo.lines().map(str::trim).collect();
    let found = lines.windows(2).filter(|pair| pair[0].starts_with("@GMT-") && pair[1].starts_with("create_time"));
    found.map(|pair| pair[0].to_string()).collect()
}

/// `PATH` with the directories of servers.
fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn has_samba() -> bool {
    let settings = Command::new("smbd").arg("-b").env("PATH", search_path()).output();
    let settings = settings.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let modules = settings.lines().find_map(|line| line.trim().strip_prefix("MODULESDIR: "));
    modules.is_some_and(|modules| Path::new(modules).join("vfs/shadow_copy2.so").exists())
        && Command::new("smbclient").arg("--version").output().is_ok()
}

#[test]
fn previous_versions_are_found_with_nothing_set() {
    if !can_mount() || !is_root() || !has_samba() {
        return eprintln!("not run: needs root, /dev/fuse and samba with its modules; `make needs-test` installs them");
    }
    for what in ["live", "a clone", "several bases"] {
        let mounted = Mounted::unmounted();
        fs::set_permissions(mounted.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if what == "several bases" {
            mounted.ok(["base", "create", "b"]);
        }
        mounted.mount(&["allow_other"]);
        let mut shared = match what {
            "several bases" => mounted.snap().join("b/live"),
            _ => mounted.live(),
        };
        let on = if what == "several bases" { "b" } else { "live" };
        fs::create_dir_all(shared.join("dir/inner")).unwrap();
        let write = |shared: &Path, text: &str| {
            fs::write(shared.join("file"), format!("top {text}")).unwrap();
            fs::write(shared.join("dir/inner/file"), format!("inner {text}")).unwrap();
        };
        write(&shared, "0");
        mounted.ok_of(on, &["snap", "zero"]);
        let on = if what == "a clone" {
            mounted.ok(["clone", "zero", "c"]);
            shared = mounted.snap().join("c");
            "c"
        } else {
            mounted.ok_of(on, &["delete", "zero"]);
            on
        };
        for (name, text) in [("one", "1"), ("two", "22")] {
            write(&shared, text);
            mounted.ok_of(on, &["snap", name]);
            std::thread::sleep(Duration::from_millis(1100));
        }
        write(&shared, "now!");
        let server = Server::share(mounted.dir.path(), &shared);
        let text = server.ok("allinfo file");
        let found = versions(&text);
        assert_eq!(found.len(), 2, "{what}: {text}");
        let out = mounted.dir.path().join("out");
        let get = |remote: &str| {
            server.ok(&format!("get \"{remote}\" {}", out.display()));
            read(&out)
        };
        assert_eq!(get("file"), "top now!", "{what}");
        for (version, text) in found.iter().zip(["22", "1"]) {
            assert_eq!(get(&format!("{version}\\file")), format!("top {text}"), "{what}");
            assert_eq!(get(&format!("{version}\\dir\\inner\\file")), format!("inner {text}"), "{what}");
        }
        assert_eq!(versions(&server.ok("allinfo dir\\inner\\file")), found, "{what}");
        let listed = server.ok(&format!("ls \"{}\\dir\\inner\\*\"", found[1]));
        assert!(listed.contains("file"), "{what}: {listed}");
        // The past is not written to, and is not among the files.
        assert!(server.run(&format!("put {} \"{}\\file\"", server.config.display(), found[0])).is_err(), "{what}");
        assert!(server.run(&format!("rm \"{}\\file\"", found[0])).is_err(), "{what}");
        assert_eq!(get(&format!("{}\\file", found[0])), "top 22", "{what}");
        let listed = server.ok("ls");
        assert!(!listed.contains("@GMT") && !listed.contains(".snap"), "{what}: {listed}");
        // What is taken while it is shared is found as well, and what is deleted is not.
        mounted.ok_of(on, &["snap", "three"]);
        mounted.ok_of(on, &["delete", "one"]);
        let now = versions(&server.ok("allinfo file"));
        assert_eq!((now.len(), now.contains(&found[1])), (2, false), "{what}: {now:?}");
        assert_eq!(get(&format!("{}\\file", now[0])), "top now!", "{what}");
        drop(server);
    }
}
