//! A table for who reads, a record for who compares.

use std::fmt::Write;

use gradclip::DType;

pub(crate) const COLUMNS: &str = "commit,device,driver,clock,type,elements,caches,kernel,form,bytes,rounds,\
    median_us,quartile_1_us,quartile_3_us,gb_per_s,share_of_copy,share_of_plain";

/// What a kernel is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    Copy,
    Read,
    Sum,
    Multiply,
    Norm,
    Decide,
    Apply,
}

impl Kernel {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kernel::Copy => "copy",
            Kernel::Read => "read",
            Kernel::Sum => "plain sum of squares",
            Kernel::Multiply => "plain multiplication",
            Kernel::Norm => "norm",
            Kernel::Decide => "decide",
            Kernel::Apply => "apply",
        }
    }

    /// Bytes that have to be moved, of gradients of so many.
    fn bytes(self, gradients: u64) -> u64 {
        match self {
            Kernel::Read | Kernel::Sum | Kernel::Norm => gradients,
            Kernel::Copy | Kernel::Multiply | Kernel::Apply => 2 * gradients,
            Kernel::Decide => 0,
        }
    }

    /// The plainest kernel that moves the same bytes to the same end.
    fn plain(self) -> Option<Kernel> {
        match self {
            Kernel::Norm => Some(Kernel::Sum),
            Kernel::Apply => Some(Kernel::Multiply),
            _ => None,
        }
    }
}

/// One kernel in one form, and the seconds it took.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) kernel: Kernel,
    pub(crate) form: String,
    pub(crate) seconds: Vec<f64>,
}

impl Series {
    /// First quartile, median, third quartile.
    fn spread(&self) -> Option<[f64; 3]> {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        Some([last / 4, last / 2, last - last / 4].map(|at| sorted[at]))
    }
}

/// Series of gradients of one type and number, measured in turns.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) dtype: DType,
    pub(crate) elements: u64,
    /// Why it is memory that is measured.
    pub(crate) caches: &'static str,
    pub(crate) series: Vec<Series>,
}

/// What holds for all cases of a run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) commit: &'static str,
    pub(crate) device: String,
    pub(crate) driver: String,
    pub(crate) clock: &'static str,
}

/// Figures of one series.
struct Figures {
    bytes: u64,
    microseconds: [f64; 3],
    gb_per_s: Option<f64>,
    share_of_copy: Option<f64>,
    share_of_plain: Option<f64>,
}

impl Case {
    fn median(&self, kernel: Kernel) -> Option<f64> {
        self.series.iter().find(|s| s.kernel == kernel)?.spread().map(|[_, median, _]| median)
    }

    /// Nothing of a series without times, nor shares without what they are shares of.
    fn figures(&self, series: &Series) -> Option<Figures> {
        let spread = series.spread()?;
        let gradients = self.elements * self.dtype.size();
        let rate = |kernel: Kernel, seconds: f64| {
            let bytes = kernel.bytes(gradients);
            (bytes > 0 && seconds > 0.0).then(|| bytes as f64 / seconds / 1e9)
        };
        let gb_per_s = rate(series.kernel, spread[1]);
        let copy = self.median(Kernel::Copy).and_then(|seconds| rate(Kernel::Copy, seconds));
        let plain = series.kernel.plain().and_then(|kernel| self.median(kernel));
        Some(Figures {
            bytes: series.kernel.bytes(gradients),
            microseconds: spread.map(|seconds| seconds * 1e6),
            gb_per_s,
            share_of_copy: gb_per_s.zip(copy).map(|(own, copy)| own / copy),
            share_of_plain: plain.filter(|_| spread[1] > 0.0).map(|plain| plain / spread[1]),
        })
    }

    /// A line for each series that has times.
    pub(crate) fn csv(&self, run: &Run) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let or_nothing = |x: Option<f64>| x.map(|x| format!("{x:.4}")).unwrap_or_default();
        let mut lines = String::new();
        for (series, f) in self.measured() {
            let [low, median, high] = f.microseconds.map(|us| format!("{us:.2}"));
            let cells = [
                run.commit.to_owned(),
                quoted(&run.device),
                quoted(&run.driver),
                quoted(run.clock),
                self.dtype.to_string(),
                self.elements.to_string(),
                quoted(self.caches),
                quoted(series.kernel.name()),
                quoted(&series.form),
                f.bytes.to_string(),
                series.seconds.len().to_string(),
                median,
                low,
                high,
                or_nothing(f.gb_per_s),
                or_nothing(f.share_of_copy),
                or_nothing(f.share_of_plain),
            ];
            let _ = writeln!(lines, "{}", cells.join(","));
        }
        lines
    }

    /// Markdown under a heading.
    pub(crate) fn table(&self) -> String {
        let percent = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{:.0} %", 100.0 * x));
        let mut table = format!("\n{}, {} elements, {}\n\n", self.dtype, self.elements, self.caches);
        table += "| kernel | form | rounds | µs | quartiles | GB/s | of the copy | of the plain kernel |\n";
        table += "|---|---|---|---|---|---|---|---|\n";
        for (series, f) in self.measured() {
            let [low, median, high] = f.microseconds.map(|us| format!("{us:.1}"));
            let rate = f.gb_per_s.map_or("-".to_owned(), |rate| format!("{rate:.1}"));
            let _ = writeln!(
                table,
                "| {} | {} | {} | {median} | {low} to {high} | {rate} | {} | {} |",
                series.kernel.name(),
                series.form,
                series.seconds.len(),
                percent(f.share_of_copy),
                percent(f.share_of_plain)
            );
        }
        table
    }

    fn measured(&self) -> impl Iterator<Item = (&Series, Figures)> {
        self.series.iter().filter_map(|series| Some((series, self.figures(series)?)))
    }
}
