//! The server's own figures as rates.

use std::time::{Duration, Instant};

use madang::Figures;

use crate::process;

/// The server at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    at: Instant,
    cpu: Option<Duration>,
    figures: Figures,
}

/// What it did between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) messages_per_second: f64,
    /// Writes given to the system for each message: below one when messages share them.
    pub(crate) sends_per_message: f64,
    /// Processor time of the server's process, its kernel work included.
    pub(crate) cpu_us_per_message: Option<f64>,
}

impl Reading {
    pub(crate) fn take(figures: Figures) -> Self {
        Self { at: Instant::now(), cpu: process::cpu_time(), figures }
    }

    pub(crate) fn figures(&self) -> &Figures {
        &self.figures
    }

    /// `None` when nothing was sent meanwhile.
    pub(crate) fn since(&self, earlier: &Self) -> Option<Rates> {
        let messages = self.figures.messages_out - earlier.figures.messages_out;
        let seconds = self.at.duration_since(earlier.at).as_secs_f64();
        if messages == 0 || seconds <= 0.0 {
            return None;
        }
        let sends = self.figures.sends - earlier.figures.sends;
        let cpu = self.cpu.zip(earlier.cpu).map(|(now, before)| now.saturating_sub(before));
        Some(Rates {
            messages_per_second: messages as f64 / seconds,
            sends_per_message: sends as f64 / messages as f64,
            cpu_us_per_message: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / messages as f64),
        })
    }
}
