//! The engine's log lines, on standard error.
//!
//! The engine logs on rare paths only (which driver it took and why, what it cannot do), so a line is written where it
//! comes up, in one write, and spans are ignored.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Shows log lines from `Level::INFO` up, or only warnings and errors, from now on.
pub(crate) fn show(most: Level) {
    // Somebody was quicker: their log is as good.
    let _already = tracing::subscriber::set_global_default(Log { most });
}

struct Log {
    most: Level,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{}:", event.metadata().level().as_str().to_lowercase()));
        event.record(&mut line);
        line.0.push('\n');
        // Where nobody listens there is nothing to be said.
        let _unheard = std::io::stderr().write_all(line.0.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message first as it stands, and each field as `name=value`, in the order in which they were given.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _infallible = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}
