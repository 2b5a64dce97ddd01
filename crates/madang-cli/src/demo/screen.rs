//! The demo's live figures: a block of lines that is drawn over itself on a terminal, a line a second elsewhere.
//! No line is longer than 80 columns: a line that wraps cannot be drawn over.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use madang::Figures;

use super::act::{Act, Verdict};
use super::meter::Rates;
use super::words::{grouped, mebibytes, time};
use crate::load::latency::Percentiles;

/// How often there is a line where nothing can be drawn over.
const LINE_EACH: Duration = Duration::from_secs(1);

/// How many half seconds of throughput the curve shows.
const CURVE: usize = 40;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What is seen at one moment.
pub(crate) struct Scene<'a> {
    pub(crate) act: &'a Act,
    pub(crate) figures: &'a Figures,
    pub(crate) rates: Rates,
    /// Round trips, as the clients saw them in the last half second.
    pub(crate) latency: Percentiles,
    pub(crate) resident: Option<u64>,
    pub(crate) verdicts: &'a [Verdict],
}

/// Standard output, whatever it is.
pub(crate) struct Screen {
    terminal: bool,
    colours: bool,
    started: Instant,
    /// Lines that stand on the terminal and are drawn over next.
    drawn: usize,
    last_line: Option<Instant>,
    /// Messages a second, newest last.
    curve: Vec<f64>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let colours = terminal && std::env::var_os("NO_COLOR").is_none();
        Self { terminal, colours, started: Instant::now(), drawn: 0, last_line: None, curve: Vec::new() }
    }

    pub(crate) fn draw(&mut self, scene: &Scene<'_>) {
        self.curve.push(scene.rates.messages_per_second);
        if self.curve.len() > CURVE {
            self.curve.remove(0);
        }
        if self.terminal {
            let lines = self.lines(scene);
            self.draw_over(&lines);
        } else if self.last_line.is_none_or(|at| at.elapsed() >= LINE_EACH) {
            self.last_line = Some(Instant::now());
            self.say(&scene.line(self.started.elapsed()));
        }
    }

    /// Leaves what is drawn and goes on below it.
    pub(crate) fn settle(&mut self) {
        self.drawn = 0;
    }

    /// Takes away what is drawn.
    pub(crate) fn clear(&mut self) {
        self.draw_over(&[]);
    }

    pub(crate) fn say(&mut self, line: &str) {
        self.settle();
        write(&format!("{line}\n"));
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn good(&self, text: &str) -> String {
        self.paint("1;32", text)
    }

    pub(crate) fn bad(&self, text: &str) -> String {
        self.paint("1;31", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn draw_over(&mut self, lines: &[String]) {
        let mut text = String::new();
        if self.drawn > 0 {
            // Up to the first line, and clear from there down.
            text += &format!("\x1b[{}A\r\x1b[J", self.drawn);
        }
        for line in lines {
            text += line;
            text.push('\n');
        }
        self.drawn = lines.len();
        write(&text);
    }

    fn lines(&self, scene: &Scene<'_>) -> Vec<String> {
        let Scene { act, figures, rates, latency, resident, verdicts } = scene;
        let label = |name: &str| self.dim(&format!("  {name:<13}"));
        let sessions = format!("{:>9}", grouped(figures.sessions));
        let so_far = format!("{} joined so far, {} left", grouped(figures.joins), grouped(figures.left()));
        let messages = format!("{:>9} /s", grouped(rates.messages_per_second as u64));
        let sends = format!("{:.2} per message", rates.sends_per_message);
        let mut lines = vec![
            String::new(),
            format!("  {}  {}", self.bold(act.name), act.story),
            String::new(),
            format!("{}{} joined   {}", label("sessions"), self.bold(&sessions), self.dim(&so_far)),
            format!("{}{}  {}", label("messages"), self.bold(&messages), self.good(&self.curve_text())),
            format!("{}p50 {:<9}  p99 {}", label("round trip"), time(latency.p50_us), time(latency.p99_us)),
            format!("{}{sends}", label("sends")),
        ];
        if let Some(cpu) = rates.cpu_us_per_message {
            lines.push(format!("{}{} per message", label("server CPU"), time(cpu)));
        }
        if let Some(resident) = resident {
            let packets = mebibytes(figures.pool.in_use.bytes as u64);
            lines.push(format!("{}{} resident, {packets} in packets", label("memory"), mebibytes(*resident)));
        }
        lines.push(format!("{}{}", label("dummies"), self.judged(act, verdicts)));
        lines
    }

    fn judged(&self, act: &Act, verdicts: &[Verdict]) -> String {
        if verdicts.is_empty() {
            return format!("judging ({})", act.mode);
        }
        let judged = |verdict: &Verdict| match verdict.failed.is_empty() {
            true => self.good(&format!("✓{}", verdict.mode)),
            false => self.bad(&format!("✗{}", verdict.mode)),
        };
        verdicts.iter().map(judged).collect::<Vec<_>>().join(" ")
    }

    fn curve_text(&self) -> String {
        let most = self.curve.iter().copied().fold(1.0, f64::max);
        let bar =
            |rate: &f64| BARS[((rate / most * (BARS.len() - 1) as f64).round() as usize).min(BARS.len() - 1)];
        self.curve.iter().map(bar).collect()
    }
}

impl Scene<'_> {
    /// All of it that fits in one line.
    fn line(&self, since: Duration) -> String {
        let Self { act, figures, rates, latency, .. } = self;
        format!(
            "{:5.1} s  {:<9} {:>6} sessions {:>9} messages/s  p50 {:<8} p99 {:<8} {:.2} sends per message",
            since.as_secs_f64(),
            act.name,
            grouped(figures.sessions),
            grouped(rates.messages_per_second as u64),
            time(latency.p50_us),
            time(latency.p99_us),
            rates.sends_per_message,
        )
    }
}

/// A reader that went away is no reason to stop measuring.
fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _unread = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
