//! Rows of figures, with the bound that each must keep.

#[derive(Default)]
pub struct Report {
    failed: Vec<String>,
    checked: usize,
}

impl Report {
    /// A figure without a bound.
    pub fn note(&mut self, name: &str, value: f64, unit: &str) {
        println!("{name:<58} {value:>12.2} {unit}");
    }

    /// A figure that must not be larger than `limit`.
    pub fn at_most(&mut self, name: &str, value: f64, unit: &str, limit: f64) {
        let kept = value <= limit;
        self.checked += 1;
        println!("{name:<58} {value:>12.2} {unit:<10} (at most {limit}) {}", if kept { "ok" } else { "MISSED" });
        if !kept {
            self.failed.push(format!("{name}: {value:.2} {unit}, at most {limit}"));
        }
    }

    /// Two sides and their ratio, which must not be larger than `limit` where one is given.
    pub fn ratio(&mut self, name: &str, ours: f64, theirs: f64, unit: &str, limit: Option<f64>) {
        self.ratio_of_pairs(name, &[(ours, theirs)], unit, limit);
    }

    /// The medians of two sides, measured in pairs, and the median of the pairs' ratios, which must not be larger than
    /// `limit` where one is given.
    pub fn ratio_of_pairs(&mut self, name: &str, pairs: &[(f64, f64)], unit: &str, limit: Option<f64>) {
        let middle = |figure: fn(&(f64, f64)) -> f64| median(pairs.iter().map(figure).collect());
        let (ours, theirs, ratio) = (middle(|pair| pair.0), middle(|pair| pair.1), middle(|pair| pair.0 / pair.1));
        let label = format!("{name} ({ours:.1} / {theirs:.1} {unit})");
        match limit {
            Some(limit) => self.at_most(&label, ratio, "x", limit),
            None => self.note(&label, ratio, "x"),
        }
    }

    /// Ends the run: exit code 1 when a bound was missed.
    pub fn finish(self) {
        println!("\n{} bounds checked, {} missed", self.checked, self.failed.len());
        for line in &self.failed {
            println!("  {line}");
        }
        if !self.failed.is_empty() {
            std::process::exit(1);
        }
    }
}

/// The median of some figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
