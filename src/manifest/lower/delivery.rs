//! Delivery: the rate, and what stops a run.

use super::{Lowering, at, types};
use crate::domain::campaign::{Bound, Delivery, Rate, StopWhen};
use crate::domain::diagnostic::Code;
use crate::manifest::source::Pointer;

impl Lowering<'_> {
    pub(super) fn delivery(&mut self, delivery: &types::Delivery, coupons: &types::Coupons) -> Option<Delivery> {
        let root = at(&["delivery"]);
        let rate = match &delivery.rate {
            None => Some(Rate::DEFAULT),
            Some(text) => {
                let rate = Rate::parse(text);
                if rate.is_none() {
                    self.error(
                        &root.join("rate"),
                        Code::InvalidRate,
                        format!("`{text}` is not a rate"),
                        "such as `80/s`, `600/m` or `5000/h`",
                    );
                }
                rate
            }
        };
        let batch = delivery.batch.unwrap_or(1) as usize;
        let concurrency = delivery.concurrency.unwrap_or(50) as usize;
        if batch > 1 && !matches!(coupons, types::Coupons::Code(_)) {
            self.error(
                &root.join("batch"),
                Code::InvalidBatch,
                "the recipients of one request share one code, but this campaign gives each recipient their own",
                "remove `batch`, or use `coupons.code`",
            );
        }
        if batch > concurrency {
            self.error(
                &root.join("batch"),
                Code::InvalidBatch,
                format!("`batch` is {batch}, but `concurrency` allows only {concurrency} messages at the same time"),
                "raise `concurrency`",
            );
        }
        let stop_when = match &delivery.stop_when {
            None => None,
            Some(stop_when) => Some(self.stop_when(&root.join("stop_when"), stop_when)?),
        };
        Some(Delivery { rate: rate?, concurrency, batch, stop_when })
    }

    fn stop_when(&mut self, root: &Pointer, stop_when: &types::StopWhen) -> Option<StopWhen> {
        let within = stop_when.within.unwrap_or(200) as usize;
        let mut bound = |name: &str, most: &Option<types::Most>| {
            let Some(types::Most(text)) = most else { return Some(None) };
            let bound = Bound::parse(text);
            match bound {
                None => self.error(
                    &root.join(name),
                    Code::InvalidStopWhen,
                    format!("`{text}` is neither a number nor a percentage"),
                    "such as `20` or `5%`",
                ),
                Some(Bound::Count(count)) if count > within as u64 => self.error(
                    &root.join(name),
                    Code::InvalidStopWhen,
                    format!("`{text}` can never be reached: only the last {within} sends are counted"),
                    "raise `within`, or lower the number",
                ),
                Some(_) => return Some(bound),
            }
            None
        };
        let (rejected, unknown) = (bound("rejected", &stop_when.rejected), bound("unknown", &stop_when.unknown));
        let (rejected, unknown) = (rejected?, unknown?);
        if rejected.is_none() && unknown.is_none() {
            self.error(root, Code::InvalidStopWhen, "`stop_when` has no bound", "set `rejected`, `unknown`, or both");
            return None;
        }
        Some(StopWhen { within, rejected, unknown })
    }
}
