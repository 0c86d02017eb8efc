//! What was measured in all rounds.

/// Values by row and column, in the order in which rows came.
pub struct Samples {
    columns: Vec<String>,
    rows: Vec<(String, Vec<Vec<f64>>)>,
}

impl Samples {
    pub fn new<'a>(columns: impl IntoIterator<Item = &'a str>) -> Samples {
        Samples { columns: columns.into_iter().map(str::to_string).collect(), rows: Vec::new() }
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    pub fn add(&mut self, column: &str, row: &str, value: f64) {
        let Some(at) = self.column(column) else { return };
        let known = self.rows.iter().position(|(name, _)| name == row);
        let index = known.unwrap_or_else(|| {
            self.rows.push((row.to_string(), vec![Vec::new(); self.columns.len()]));
            self.rows.len() - 1
        });
        self.rows[index].1[at].push(value);
    }

    pub fn rows(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|(name, _)| name.as_str())
    }

    /// The median of all rounds; NaN where nothing could be measured.
    pub fn median(&self, column: &str, row: &str) -> f64 {
        let values = self.rows.iter().find(|(name, _)| name == row).zip(self.column(column));
        values.map_or(f64::NAN, |((_, values), at)| median(&values[at]))
    }
}

/// NaN without values.
pub fn median(values: &[f64]) -> f64 {
    let mut known: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    known.sort_by(f64::total_cmp);
    match known.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => known[len / 2],
        len => (known[len / 2 - 1] + known[len / 2]) / 2.0,
    }
}

/// The value that this share of all values does not exceed; NaN without values.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).ceil() as usize).copied().unwrap_or(f64::NAN)
}
