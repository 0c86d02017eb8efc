//! Tables of markdown, on standard output and in a file, and whether targets are met.

use crate::Result;
use crate::work::Work;
use std::fs::File;
use std::io::Write;

/// What a number should be.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl std::fmt::Display for Target {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::AtMost(limit) => write!(out, "≤ {limit}"),
            Target::AtLeast(limit) => write!(out, "≥ {limit}"),
        }
    }
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Target::AtMost(limit) => value <= limit,
            Target::AtLeast(limit) => value >= limit,
        }
    }
}

pub struct Report {
    out: Option<File>,
    met: usize,
    missed: Vec<String>,
}

/// Columns are as wide as what is in them.
pub struct Table {
    title: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(title: &str, header: &[&str]) -> Table {
        Table { title: title.into(), header: header.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

/// Three or more significant digits; `-` for what could not be measured.
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "-".into(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

impl Report {
    /// A report that goes to a file as well, unless its name is empty.
    pub fn new(out: &str) -> Result<Report> {
        let out =
            if out.is_empty() { None } else { Some(File::create(out).map_err(|error| format!("{out}: {error}"))?) };
        Ok(Report { out, met: 0, missed: Vec::new() })
    }

    /// What is being done; not part of the result.
    pub fn doing(&self, what: &str) {
        eprintln!("# {what}");
    }

    pub fn line(&mut self, text: &str) -> Result<()> {
        println!("{text}");
        if let Some(out) = &mut self.out {
            writeln!(out, "{text}")?;
        }
        Ok(())
    }

    pub fn table(&mut self, table: &Table) -> Result<()> {
        let all = || std::iter::once(&table.header).chain(&table.rows);
        let width = |i: usize| all().map(|row| row.get(i).map_or(0, |cell| cell.chars().count())).max().unwrap_or(0);
        let widths: Vec<usize> = (0..table.header.len()).map(width).collect();
        self.line(&format!("\n**{}**\n", table.title))?;
        let is_number =
            |cell: &str| cell.is_empty() || cell.starts_with(|first: char| first.is_ascii_digit() || first == '-');
        let is_words = |at: usize| table.rows.iter().any(|row| row.get(at).is_some_and(|cell| !is_number(cell)));
        for (i, row) in all().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match is_words(at) {
                true => format!("{cell:<width$}"),
                false => format!("{cell:>width$}"),
            });
            self.line(&format!("| {} |", cells.collect::<Vec<_>>().join(" | ")))?;
            if i == 0 {
                let lines = widths.iter().enumerate().map(|(at, width)| match is_words(at) {
                    true => "-".repeat(*width),
                    false => format!("{}:", "-".repeat(width.saturating_sub(1))),
                });
                self.line(&format!("| {} |", lines.collect::<Vec<_>>().join(" | ")))?;
            }
        }
        Ok(())
    }

    /// A cell that says what `what` should be and whether it is.
    pub fn judge(&mut self, what: &str, value: f64, target: Target) -> String {
        if !value.is_finite() {
            return format!("{target}");
        }
        if target.is_met(value) {
            self.met += 1;
            return format!("{target} met");
        }
        self.missed.push(format!("{what}: {} instead of {target}", number(value)));
        format!("{target} **missed**")
    }

    pub fn summary(&mut self) -> Result<()> {
        let missed = std::mem::take(&mut self.missed);
        self.line(&format!("\n{} of {} targets met", self.met, self.met + missed.len()))?;
        missed.iter().try_for_each(|text| self.line(&format!("- {text}")))
    }

    /// On what machine and in which size this ran.
    pub fn conditions(&mut self, work: &Work, rounds: usize, mb: u64, scale: f64) -> Result<()> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map_or("unknown".to_string(), |rest| rest.trim_start_matches([' ', '\t', ':']).to_string())
        };
        let cores = std::thread::available_parallelism()?;
        let kernel = read("/proc/sys/kernel/osrelease");
        self.line(&format!(
            "pitfs {}, Linux {}, {cores} cores of {}, memory {}, work on {}; medians of {rounds} rounds, MB={mb} SCALE={scale}",
            env!("CARGO_PKG_VERSION"),
            kernel.trim(),
            field(&read("/proc/cpuinfo"), "model name"),
            field(&read("/proc/meminfo"), "MemTotal"),
            work.kind(),
        ))
    }
}
