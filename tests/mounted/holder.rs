//! Programs that hold what they have opened, mapped or mounted, for as long as a test lasts.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Both cache modes, and without requests for opens.
pub const MODES: [&[&str]; 3] = [&[], &["open=none"], &["writeback"]];

/// A process that ends with the test, also with one that fails.
pub struct Running(Child);

impl Running {
    /// A program in Python, with its arguments; none where there is no Python, which is said.
    pub fn python(program: &str, arguments: &[&Path]) -> Option<Running> {
        Running::start(program, arguments, Stdio::null(), Stdio::null())
    }

    fn start(program: &str, arguments: &[&Path], stdin: Stdio, stdout: Stdio) -> Option<Running> {
        let mut command = Command::new("python3");
        // Nothing of the test's own, which would be open for as long as the program runs.
        command.args(["-c", program]).args(arguments).stdin(stdin).stdout(stdout).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            eprintln!("not run: there is no python3");
            return None;
        };
        Some(Running(child))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ended_already = self.0.wait();
    }
}

/// A program that keeps what it has opened and mapped, and does what it is told, a line of Python each.
pub struct Holder {
    _running: Running,
    told: ChildStdin,
    said: BufReader<ChildStdout>,
}

/// What waits in vain ends it.
const HOLDER: &str = r#"
import errno, fcntl, mmap, os, signal, sys
os.chdir(sys.argv[1])
print(flush=True)
names = {'fcntl': fcntl, 'mmap': mmap, 'os': os, 'sys': sys}
for line in sys.stdin:
    names['out'] = None
    signal.alarm(60)
    try:
        exec(line, names)
        print(repr(names['out']), flush=True)
    except OSError as error:
        print(errno.errorcode.get(error.errno, error), flush=True)
    except Exception as error:
        print(repr(error), flush=True)
    signal.alarm(0)
"#;

impl Holder {
    /// One that stands in a directory.
    pub fn new(directory: &Path) -> Option<Holder> {
        let mut running = Running::start(HOLDER, &[directory], Stdio::piped(), Stdio::piped())?;
        let told = running.0.stdin.take().unwrap();
        let mut said = BufReader::new(running.0.stdout.take().unwrap());
        assert_eq!(said.read_line(&mut String::new()).unwrap(), 1, "it stands in {}", directory.display());
        Some(Holder { _running: running, told, said })
    }

    /// What came of it: `None`, or the name of an error.
    pub fn run(&mut self, line: &str) -> String {
        writeln!(self.told, "{line}").unwrap();
        let mut said = String::new();
        self.said.read_line(&mut said).unwrap();
        said.trim().to_string()
    }

    /// The value of an expression.
    pub fn says(&mut self, expression: &str) -> String {
        self.run(&format!("out = {expression}"))
    }

    /// Does what has to succeed.
    pub fn ok(&mut self, line: &str) {
        assert_eq!(self.run(line), "None", "{line}");
    }
}

/// A directory that is mounted on another one; not any more when it is dropped.
pub struct Bind(pub PathBuf);

impl Bind {
    pub fn new(what: &Path, at: &Path) -> Bind {
        rustix::mount::mount_bind(what, at).unwrap();
        Bind(at.to_path_buf())
    }

    /// Whether what is mounted shows: the file `inside` of it.
    pub fn is_there(&self) -> bool {
        self.0.join("inside").exists()
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _gone_already = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Sets the times of a file, in seconds.
pub fn set_time(path: &Path, seconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
}
