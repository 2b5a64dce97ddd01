//! The last events of a run, for whoever has to find out what happened.

use std::collections::VecDeque;

use madang_driver::Time;

/// How many of the last events a failure shows.
const EVENTS_MAX: usize = 120;

/// Written only in a replay: the first run of a seed pays nothing for it.
pub(super) struct Chronicle {
    is_kept: bool,
    is_printed: bool,
    events: VecDeque<String>,
}

impl Chronicle {
    pub(super) fn new(is_kept: bool, is_printed: bool) -> Chronicle {
        Chronicle { is_kept: is_kept || is_printed, is_printed, events: VecDeque::new() }
    }

    pub(super) fn note(&mut self, now: Time, event: impl FnOnce() -> String) {
        if !self.is_kept {
            return;
        }
        let line = format!("{:>12.6} ms  {}", now.as_nanos() as f64 / 1e6 - 1_000.0, event());
        if self.is_printed {
            println!("{line}");
        }
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(line);
    }

    pub(super) fn last_events(&self) -> Vec<String> {
        self.events.iter().cloned().collect()
    }
}
