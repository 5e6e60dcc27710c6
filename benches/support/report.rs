//! The table at the end, and the same as JSON.

use comfy_table::{Table, presets};
use serde::Serialize;

use super::peers::target;

/// What is to hold of a line.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// The measured value, in its unit.
    ValueAtMost(f64),
    /// The measured value as a ratio to the yardstick.
    RatioAtLeast(f64),
    RatioAtMost(f64),
    /// A fact beside the goals.
    None,
}

#[derive(Debug, Serialize)]
struct Line {
    id: &'static str,
    what: String,
    unit: &'static str,
    measured: f64,
    samples: Vec<f64>,
    yardstick: Option<String>,
    yardstick_value: Option<f64>,
    yardstick_samples: Vec<f64>,
    ratio: Option<f64>,
    goal: Goal,
    met: Option<bool>,
}

/// What one benchmark has found.
#[derive(Debug, Serialize)]
pub struct Report {
    bench: &'static str,
    arguments: Vec<String>,
    cores: usize,
    load_at_start: String,
    lines: Vec<Line>,
    facts: Vec<String>,
}

impl Report {
    pub fn new(bench: &'static str) -> Self {
        Self {
            bench,
            arguments: std::env::args().skip(1).filter(|argument| argument != "--bench").collect(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_at_start: std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned(),
            lines: Vec::new(),
            facts: Vec::new(),
        }
    }

    /// A sentence that belongs to the figures.
    pub fn fact(&mut self, fact: String) {
        println!("{fact}");
        self.facts.push(fact);
    }

    /// The median of `samples`, by itself.
    pub fn value(&mut self, id: &'static str, what: String, unit: &'static str, samples: &[f64], goal: Goal) {
        self.push(id, what, unit, samples, None, goal);
    }

    /// The median of `samples` beside that of a yardstick's, which were taken in turn with them: the ratio is the median of
    /// the ratios of each turn.
    pub fn ratio(
        &mut self,
        id: &'static str,
        what: String,
        unit: &'static str,
        samples: &[f64],
        (yardstick, theirs): (&str, &[f64]),
        goal: Goal,
    ) {
        self.push(id, what, unit, samples, Some((yardstick, theirs)), goal);
    }

    fn push(
        &mut self,
        id: &'static str,
        what: String,
        unit: &'static str,
        samples: &[f64],
        yardstick: Option<(&str, &[f64])>,
        goal: Goal,
    ) {
        let measured = super::median(samples);
        let ratio = yardstick.map(|(_, theirs)| {
            super::median(&samples.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
        });
        let met = match goal {
            Goal::ValueAtMost(most) => Some(measured <= most),
            Goal::RatioAtLeast(least) => ratio.map(|ratio| ratio >= least),
            Goal::RatioAtMost(most) => ratio.map(|ratio| ratio <= most),
            Goal::None => None,
        };
        self.lines.push(Line {
            id,
            what,
            unit,
            measured,
            samples: samples.to_vec(),
            yardstick: yardstick.map(|(name, _)| name.to_owned()),
            yardstick_value: yardstick.map(|(_, theirs)| super::median(theirs)),
            yardstick_samples: yardstick.map(|(_, theirs)| theirs.to_vec()).unwrap_or_default(),
            ratio,
            goal,
            met,
        });
    }

    /// Prints the table and writes `target/bench/NAME.json`.
    pub fn end(self) {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["", "", "measured", "yardstick", "ratio", "goal", "met"]);
        for line in &self.lines {
            let yardstick = line.yardstick.as_ref().zip(line.yardstick_value);
            table.add_row([
                line.id.to_owned(),
                line.what.clone(),
                format!("{} {}", figure(line.measured), line.unit),
                yardstick.map(|(name, value)| format!("{name}: {}", figure(value))).unwrap_or_default(),
                line.ratio.map(|ratio| format!("{ratio:.4}")).unwrap_or_default(),
                match line.goal {
                    Goal::ValueAtMost(most) => format!("at most {most} {}", line.unit),
                    Goal::RatioAtLeast(least) => format!("ratio at least {least}"),
                    Goal::RatioAtMost(most) => format!("ratio at most {most}"),
                    Goal::None => String::new(),
                },
                line.met.map(|met| if met { "yes" } else { "NO" }).unwrap_or_default().to_owned(),
            ]);
        }
        println!("\n{table}");
        let path = target().join(self.bench).with_extension("json");
        std::fs::write(&path, serde_json::to_vec_pretty(&self).unwrap()).unwrap();
        println!("{}", path.display());
    }
}

fn figure(value: f64) -> String {
    if value >= 1000.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}
