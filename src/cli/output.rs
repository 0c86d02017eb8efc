//! Tables, sizes, JSON and progress, as people and scripts want them.

use crate::control::ErrorInfo;
use crate::daemon::Progress;
use crate::error::{Errno, Error, Result};
use crate::shown::{is_hidden, line, plain, shown_file};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Prints text; a reader that has gone, like `head`, is no failure.
pub fn print(text: &str) -> Result<()> {
    write(plain(text).as_bytes())
}

/// Says something beside the answer, in one line of standard error.
pub fn tell(text: impl fmt::Display) {
    tell_lines(&format!("pitfs: {}\n", line(&text.to_string())));
}

pub fn tell_all<'a>(problems: impl IntoIterator<Item = &'a String>) {
    problems.into_iter().for_each(tell);
}

/// Passes whole lines on to standard error.
pub fn tell_lines(text: &str) {
    // Whoever listened may be gone.
    let _said = write!(io::stderr().lock(), "{}", plain(text));
}

/// How long ago something was, or that it is still to come.
pub fn ago(seconds: i64) -> String {
    if seconds < 0 { "at a time to come".into() } else { format!("{} ago", age(seconds)) }
}

/// A span of time in the largest unit that says enough.
pub fn age(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Bytes of a file, for another program.
pub fn write(bytes: &[u8]) -> Result<()> {
    match io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Error::media("writing to standard output", error)),
    }
}

/// The names in an object are in alphabetical order, so that what is added later moves nothing else.
pub fn print_json<T: Serialize + ?Sized>(value: &T) -> Result<()> {
    let text = serde_json::to_value(value).and_then(|sorted| serde_json::to_string_pretty(&sorted));
    let text = text.map_err(|error| Error::media("making JSON", error.into()))?;
    print(&format!("{}\n", json_plain(&text)))
}

/// JSON that says the same with nothing hidden in it: outside of its texts there is no such character but the ends of lines.
fn json_plain(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        match is_hidden(c) && c != '\n' {
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}"))),
            false => text.push(c),
        }
    }
    text
}

/// Prints what failed as one line of JSON to standard error.
pub fn print_error_json(errno: Errno, message: &str) {
    let value = serde_json::json!({ "error": ErrorInfo::new(errno, message) });
    tell_lines(&format!("{}\n", json_plain(&value.to_string())));
}

/// A path outside the store as text.
pub fn file(name: &Path) -> String {
    shown_file(name).to_string()
}

pub use crate::shown::size;

/// `1 file`, `2 files`.
pub fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Begins like a number and is no time.
fn is_amount(cell: &str) -> bool {
    cell.starts_with(|c: char| c.is_ascii_digit()) && !cell.contains(':')
}

/// Lines up columns; those with numbers to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| line(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    // The first row may be headings.
    let below = |column: usize| rows.iter().skip(1).filter_map(move |row| row.get(column));
    let has_number = |column| below(column).all(|cell| cell.is_empty() || is_amount(cell));
    let is_number: Vec<bool> = (0..columns).map(|column| column > 0 && has_number(column)).collect();
    // Formatting takes no width beyond 65,535.
    let padding = |cell: &str, width: usize| " ".repeat(width - cell.chars().count());
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, cell)| match is_number[column] {
            false => cell.to_string() + &padding(cell, widths[column]),
            true => padding(cell, widths[column]) + cell,
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows how far long work is: a bar on a terminal, a line now and then elsewhere.
pub struct Display {
    bar: Option<ProgressBar>,
    what: &'static str,
    last_line: Instant,
}

impl Display {
    pub fn new(what: &'static str) -> Display {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            // The template is a constant that indicatif knows.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {msg} [{elapsed}]") {
                bar.set_style(style);
            }
            bar.set_prefix(what);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Display { bar, what, last_line: Instant::now() }
    }

    pub fn update(&mut self, progress: &Progress) -> Result<()> {
        let text = || {
            let of =
                if progress.total_bytes > 0 { format!(" of {}", size(progress.total_bytes)) } else { String::new() };
            format!("{} files, {}{of}", progress.files, size(progress.bytes))
        };
        match &self.bar {
            Some(bar) => bar.set_message(text()),
            None if self.last_line.elapsed() >= LINE_INTERVAL => {
                self.last_line = Instant::now();
                tell_lines(&format!("{}: {}\n", self.what, text()));
            }
            None => {}
        }
        Ok(())
    }

    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_any_length_are_in_columns() {
        let long = "x".repeat(70_000);
        let rows = [vec!["a".to_string(), long.clone(), "c".to_string()], vec!["b".into(), "1".into(), "d".into()]];
        let text = table(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("a  xx") && lines[0].ends_with("x  c") && lines[1].ends_with("  d"));
        assert_eq!(lines[0].len(), lines[1].len());
    }

    #[test]
    fn sizes_are_short_and_true() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 20, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn tables_line_up() {
        let rows = vec![vec!["a".into(), "100".into()], vec!["long".into(), "1".into()]];
        assert_eq!(table(&rows), "a     100\nlong    1\n");
        let rows = [["name", "size", "note"], ["a", "1 B", ""], ["long", "10 B", "held"], ["b", "", "x"]];
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.map(String::from).to_vec()).collect();
        assert_eq!(table(&rows), "name  size  note\na      1 B\nlong  10 B  held\nb           x\n");
    }

    #[test]
    fn json_says_the_same_with_nothing_hidden_in_it() {
        let hidden: String = (0..=u32::from(char::MAX)).filter_map(char::from_u32).filter(|c| is_hidden(*c)).collect();
        let value = serde_json::json!({ "name": format!("a\\{hidden}ä") });
        let text = json_plain(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!text.chars().any(|c| is_hidden(c) && c != '\n'), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
