//! What a server left behind when it stopped: nothing, or the command fails.

use std::fmt;

use madang::{Figures, LeaveReason, Server, StopError, StopReport};

use crate::process;

/// The books of one server, from start to stop.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    /// Counted before the start and after the stop, where the system tells.
    pub(crate) descriptors: Option<(usize, usize)>,
    pub(crate) report: StopReport,
    /// Taken after the stop.
    pub(crate) figures: Figures,
}

impl Books {
    /// Drains `server` and counts what is left. `descriptors` were counted before it started.
    pub(crate) fn close(server: Server, descriptors: Option<usize>) -> Result<Self, StopError> {
        let remote = server.remote();
        let report = server.drain().map_err(|(_, error)| error)?.report();
        let figures = remote.figures();
        // It can still wake the shards, through a descriptor each.
        drop(remote);
        Ok(Self { descriptors: descriptors.zip(process::descriptors()), report, figures })
    }

    /// Whether every packet, descriptor, slot and session was given back, and every join had its leave.
    pub(crate) fn balance(&self) -> bool {
        self.unbalanced().is_empty()
    }

    /// What is left over, by name.
    fn unbalanced(&self) -> Vec<(&'static str, i128)> {
        let Self { report, figures, .. } = self;
        let (before, after) = self.descriptors.unwrap_or_default();
        let panics = self.leaves(LeaveReason::HandlerPanic);
        let accounts = [
            ("packets out", report.packets_out as i128),
            ("descriptors left open", after as i128 - before as i128),
            ("sessions left behind", report.sessions_left_behind as i128),
            ("joins without a leave", i128::from(figures.joins) - i128::from(figures.left())),
            ("embryos left behind", i128::from(figures.embryos)),
            ("operations leaked", report.leaked_operations as i128),
            ("connections leaked", report.leaked_connections as i128),
            ("panics in callbacks", i128::from(panics)),
        ];
        accounts.into_iter().filter(|(_, left)| *left != 0).collect()
    }

    fn leaves(&self, reason: LeaveReason) -> u64 {
        self.figures.leaves[usize::from(reason.code())]
    }

    /// The reasons that occurred, by how often.
    pub(crate) fn leaves_by_reason(&self) -> Vec<(&'static str, u64)> {
        let mut leaves: Vec<_> = (0..)
            .zip(self.figures.leaves)
            .map(|(code, count)| (LeaveReason::label_of(code), count))
            .collect();
        leaves.retain(|(_, count)| *count > 0);
        leaves.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        leaves
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { accepted, refused, failed, joins, messages_in, messages_out, sends, errors, .. } =
            self.figures;
        let Figures { records_out, records_in, handshakes, .. } = self.figures;
        writeln!(
            f,
            "peers     {accepted} accepted, {refused} turned away, {failed} failed to greet, {joins} joined"
        )?;
        write!(f, "leaves   ")?;
        for (reason, count) in self.leaves_by_reason() {
            write!(f, " {reason} {count},")?;
        }
        writeln!(f, " {} in all", self.figures.left())?;
        writeln!(f, "messages  {messages_in} in, {messages_out} out in {sends} sends")?;
        if handshakes > 0 {
            // The engine's own words, welcomes among them, lie in records too.
            let under = messages_out as f64 / records_out.max(1) as f64;
            writeln!(
                f,
                "seals     {records_out} records out ({under:.2} messages under each), {records_in} in, \
                 {handshakes} handshakes"
            )?;
        }
        writeln!(f, "errors    {errors} told (peers' faults included)")?;
        match self.descriptors {
            Some((before, after)) => writeln!(f, "files     {before} descriptors before, {after} after")?,
            None => writeln!(f, "files     this system does not tell")?,
        }
        let left = self.unbalanced();
        if left.is_empty() {
            return write!(f, "balance   packets, descriptors, slots and sessions: all back, nothing leaked");
        }
        write!(f, "balance   FAILED:")?;
        for (name, count) in left {
            write!(f, " {count} {name};")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Books in which one thing was changed.
    fn books(change: impl FnOnce(&mut Books)) -> Books {
        let mut figures = Figures::default();
        (figures.joins, figures.leaves[0]) = (3, 3);
        let mut books = Books { descriptors: Some((5, 5)), report: StopReport::default(), figures };
        change(&mut books);
        books
    }

    #[test]
    fn encrypted_servers_say_how_many_messages_a_seal_carried() {
        let plain = books(|books| books.figures.messages_out = 40).to_string();
        assert!(!plain.contains("seals"), "{plain}");
        let sealed = books(|books| {
            (books.figures.handshakes, books.figures.messages_out) = (3, 40);
            (books.figures.records_out, books.figures.records_in) = (16, 20);
        });
        let line = "seals     16 records out (2.50 messages under each), 20 in, 3 handshakes";
        assert!(sealed.to_string().lines().any(|told| told == line), "{sealed}");
    }

    #[test]
    fn each_account_that_is_not_zero_is_named() {
        assert!(books(|_| {}).balance());
        assert!(books(|books| books.descriptors = None).balance());
        type Change = fn(&mut Books);
        let table: [(Change, &str); 8] = [
            (|books| books.report.packets_out = 1, "1 packets out"),
            (|books| books.descriptors = Some((5, 7)), "2 descriptors left open"),
            (|books| books.report.sessions_left_behind = 1, "1 sessions left behind"),
            (|books| books.figures.joins = 4, "1 joins without a leave"),
            (|books| books.figures.embryos = 2, "2 embryos left behind"),
            (|books| books.report.leaked_operations = 1, "1 operations leaked"),
            (|books| books.report.leaked_connections = 1, "1 connections leaked"),
            (
                |books| {
                    books.figures.leaves[0] = 2;
                    books.figures.leaves[usize::from(LeaveReason::HandlerPanic.code())] = 1;
                },
                "1 panics in callbacks",
            ),
        ];
        for (change, expected) in table {
            let books = books(change);
            let text = books.to_string();
            assert!(!books.balance() && text.contains("FAILED") && text.contains(expected), "{text}");
        }
    }
}
