//! What every step did, and its file: a line of CSV a step, whose numbers are read back as they were.

use std::error::Error;
use std::path::Path;

use gradclip::Report;

/// How many steps the loss is averaged over in the end.
const LAST: usize = 20;

#[derive(Clone, Copy)]
pub(super) struct Record {
    /// From 0.
    pub(super) step: u64,
    /// The mean over the micro-batches, in nats.
    pub(super) loss: f32,
    pub(super) norm: f64,
    pub(super) threshold: f64,
    pub(super) coefficient: f64,
    /// Of the step after this one.
    pub(super) loss_scale: f64,
    pub(super) rate: f64,
}

impl Record {
    pub(super) fn new(report: &Report, losses: &[f32]) -> Record {
        let all = &report.segments[0];
        Record {
            step: report.step - 1,
            loss: losses.iter().sum::<f32>() / losses.len() as f32,
            norm: all.norm,
            threshold: all.threshold,
            coefficient: all.coefficient,
            loss_scale: report.loss_scale.unwrap_or(1.0),
            rate: report.lr.unwrap_or(0.0),
        }
    }

    pub(super) fn in_words(&self) -> String {
        let Record { step, loss, norm, coefficient, loss_scale, rate, .. } = self;
        format!(
            "step {step:4}  loss {loss:.3}  norm {norm:6.3}  times {coefficient:.3}  \
             loss scale 2^{}  rate {rate:.1e}",
            loss_scale.log2()
        )
    }

    fn to_line(self) -> String {
        let Record { step, loss, norm, threshold, coefficient, loss_scale, rate } = self;
        format!("{step},{loss},{norm},{threshold},{coefficient},{loss_scale},{rate}\n")
    }

    fn from_line(line: &str) -> Option<Record> {
        let mut words = line.split(',');
        let (step, loss) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let numbers: Vec<f64> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let [norm, threshold, coefficient, loss_scale, rate] = numbers[..] else { return None };
        Some(Record { step, loss, norm, threshold, coefficient, loss_scale, rate })
    }
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) records: Vec<Record>,
}

impl Log {
    /// The steps before `step`, of a run that was stopped there or later.
    pub(super) fn read(file: &Path, step: u64) -> Result<Log, Box<dyn Error>> {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let parsed = text.lines().skip(1).map(|line| Record::from_line(line).ok_or(line));
        let mut records =
            parsed.collect::<Result<Vec<_>, _>>().map_err(|line| format!("not a step: {line}"))?;
        records.retain(|record| record.step < step);
        if records.len() as u64 != step {
            return Err(format!("{}: {} of the first {step} steps", file.display(), records.len()).into());
        }
        Ok(Log { records })
    }

    pub(super) fn write(&self, file: &Path) -> Result<(), Box<dyn Error>> {
        let head = "step,loss,norm,threshold,coefficient,loss scale,rate\n".to_string();
        let lines = self.records.iter().map(|record| record.to_line());
        Ok(std::fs::write(file, std::iter::once(head).chain(lines).collect::<String>())?)
    }

    /// The mean over the last steps.
    pub(super) fn last_loss(&self) -> f64 {
        let last = &self.records[self.records.len().saturating_sub(LAST)..];
        last.iter().map(|record| f64::from(record.loss)).sum::<f64>() / last.len() as f64
    }
}
