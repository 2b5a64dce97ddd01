//! The verdict on one connection: is every echo there, once, in order, unaltered?
//!
//! The judge is told how many messages were said and sees every payload that came back. It knows nothing of sockets.

use std::collections::BTreeSet;
use std::fmt;

use super::message::{Claim, Command, Sizes, Speaker};

/// Follows one connection; give it every payload with [`Judge::hear`], then ask once with [`Judge::finish`].
#[derive(Debug)]
pub(crate) struct Judge {
    speaker: Speaker,
    sizes: Sizes,
    /// Messages said so far; the next one has this sequence.
    said: u64,
    /// The sequence whose echo is due next.
    due: u64,
    /// Sequences before `due` that were passed over: lost, unless they come late.
    missing: BTreeSet<u64>,
    /// Echoes that were right, in place and on time.
    verified: u64,
    /// The message that an echo is compared with, made anew each time.
    expected: Vec<u8>,
}

/// How many of the messages said must have come back, and how many may.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) at_least: u64,
    pub(crate) at_most: u64,
}

/// What the judge saw that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Messages `first` and following never came back.
    Lost { first: u64, count: u64 },
    /// The echo of `sequence` came a second time.
    Doubled { sequence: u64 },
    /// The echo of `sequence` came after that of a later message.
    Reordered { sequence: u64, due: u64 },
    /// The echo that stands in place of `sequence` first differs at byte `at`.
    Altered { sequence: u64, at: usize, expected: Option<u8>, got: Option<u8> },
    /// A whole, unaltered message that this connection never sent.
    Foreign { client: u32, connection: u32, sequence: u64, due: u64 },
    /// The server went on echoing messages behind the one that asked it to disconnect.
    AfterEnd { due_at_most: u64, heard: u64 },
}

impl Judge {
    pub(crate) fn new(speaker: Speaker, sizes: Sizes) -> Self {
        Self { speaker, sizes, said: 0, due: 0, missing: BTreeSet::new(), verified: 0, expected: Vec::new() }
    }

    /// Counts one more message as said and gives its sequence. Call it before the first byte of it is written: from
    /// then on its echo may come.
    pub(crate) fn say(&mut self) -> u64 {
        self.said += 1;
        self.said - 1
    }

    /// Messages said so far.
    pub(crate) const fn said(&self) -> u64 {
        self.said
    }

    /// Messages whose echo came or was passed over.
    pub(crate) const fn heard(&self) -> u64 {
        self.due
    }

    /// Echoes that were right.
    pub(crate) const fn verified(&self) -> u64 {
        self.verified
    }

    /// Judges one payload that came back.
    pub(crate) fn hear(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let genuine = Claim::read(payload).filter(|&claim| {
            self.make(claim);
            self.expected == payload
        });
        let Some(claim) = genuine else {
            return Err(self.hear_altered(payload));
        };
        let Claim { client, connection, sequence, .. } = claim;
        let ours =
            (client, connection) == (self.speaker.client, self.speaker.connection) && sequence < self.said;
        if !ours {
            Err(Fault::Foreign { client, connection, sequence, due: self.due })
        } else if sequence >= self.due {
            self.missing.extend(self.due..sequence);
            self.due = sequence + 1;
            self.verified += 1;
            Ok(())
        } else if self.missing.remove(&sequence) {
            Err(Fault::Reordered { sequence, due: self.due })
        } else {
            Err(Fault::Doubled { sequence })
        }
    }

    /// Judges the beginning of a payload that a reset cut off: what did come must be right.
    pub(crate) fn hear_cut(&mut self, payload: &[u8]) -> Result<(), Fault> {
        self.make_due(payload);
        if self.expected.starts_with(payload) { Ok(()) } else { Err(self.hear_altered(payload)) }
    }

    /// The stream is over: what is missing?
    pub(crate) fn finish(&self, due: Due) -> Vec<Fault> {
        let mut faults = Vec::new();
        let tail = self.due..due.at_least;
        let mut gone = self.missing.iter().copied().chain(tail).peekable();
        while let Some(first) = gone.next() {
            let mut count = 1;
            while gone.next_if_eq(&(first + count)).is_some() {
                count += 1;
            }
            faults.push(Fault::Lost { first, count });
        }
        if self.due > due.at_most {
            faults.push(Fault::AfterEnd { due_at_most: due.at_most, heard: self.due });
        }
        faults
    }

    /// The altered message stands in the place of the one that was due, so that it is not counted as lost as well.
    fn hear_altered(&mut self, payload: &[u8]) -> Fault {
        let sequence = self.due;
        self.make_due(payload);
        let differs = self.expected.iter().zip(payload).position(|(expected, got)| expected != got);
        let at = differs.unwrap_or(self.expected.len().min(payload.len()));
        self.due += u64::from(self.due < self.said);
        Fault::Altered {
            sequence,
            at,
            expected: self.expected.get(at).copied(),
            got: payload.get(at).copied(),
        }
    }

    /// Makes the message whose echo is due. Only its command is not known here; it is taken from what came.
    fn make_due(&mut self, payload: &[u8]) {
        let command = payload.first().and_then(|&byte| Command::of(byte)).unwrap_or(Command::Echo);
        let Speaker { client, connection, .. } = self.speaker;
        self.make(Claim { command, client, connection, sequence: self.due });
    }

    fn make(&mut self, claim: Claim) {
        self.expected.clear();
        claim.write(self.speaker.seed, self.sizes, &mut self.expected);
    }
}

impl Fault {
    /// The kind in one word, as the summary counts it.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Lost { .. } => "lost",
            Self::Doubled { .. } => "doubled",
            Self::Reordered { .. } => "reordered",
            Self::Altered { .. } => "altered",
            Self::Foreign { .. } => "foreign",
            Self::AfterEnd { .. } => "after-end",
        }
    }

    /// How many messages it concerns.
    pub(crate) const fn messages(&self) -> u64 {
        match self {
            Self::Lost { count, .. } => *count,
            Self::AfterEnd { due_at_most, heard } => *heard - *due_at_most,
            _ => 1,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let byte = |byte: &Option<u8>| byte.map_or("the end".to_owned(), |byte| format!("{byte:#04x}"));
        match self {
            Self::Lost { first, count: 1 } => write!(f, "sequence {first} never came back"),
            Self::Lost { first, count } => {
                write!(f, "sequences {first} to {} ({count}) never came back", first + count - 1)
            }
            Self::Doubled { sequence } => write!(f, "sequence {sequence} came back twice"),
            Self::Reordered { sequence, due } => {
                write!(f, "sequence {sequence} came back late, when {due} was due")
            }
            Self::Altered { sequence, at, expected, got } => {
                let (expected, got) = (byte(expected), byte(got));
                write!(f, "in place of sequence {sequence}, byte {at}: expected {expected}, got {got}")
            }
            Self::Foreign { client, connection, sequence, due } => write!(
                f,
                "got sequence {sequence} of client {client}, connection {connection}, when our {due} was due"
            ),
            Self::AfterEnd { due_at_most, heard } => {
                write!(f, "at most {due_at_most} echoes were due before the end, {heard} came")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEAKER: Speaker = Speaker { seed: 42, client: 7, connection: 3 };
    const SIZES: Sizes = Sizes { min: 24, max: 80 };

    fn message(speaker: Speaker, sequence: u64) -> Vec<u8> {
        let Speaker { seed, client, connection } = speaker;
        let mut payload = Vec::new();
        Claim { command: Command::Echo, client, connection, sequence }.write(seed, SIZES, &mut payload);
        payload
    }

    fn echo(sequence: u64) -> Vec<u8> {
        message(SPEAKER, sequence)
    }

    fn edited(sequence: u64, edit: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut payload = echo(sequence);
        edit(&mut payload);
        payload
    }

    /// Five messages are said, all five must come back, `heard` comes back: these faults and no others are seen.
    fn check(heard: &[Vec<u8>], expected: &[&str]) {
        check_due(heard, Due { at_least: 5, at_most: 5 }, expected);
    }

    fn check_due(heard: &[Vec<u8>], due: Due, expected: &[&str]) {
        let mut judge = Judge::new(SPEAKER, SIZES);
        (0..5).for_each(|sequence| assert_eq!(judge.say(), sequence));
        let mut faults: Vec<_> = heard.iter().filter_map(|payload| judge.hear(payload).err()).collect();
        faults.extend(judge.finish(due));
        let faults: Vec<_> = faults.iter().map(|fault| format!("{}: {fault}", fault.kind())).collect();
        assert_eq!(faults, expected);
    }

    #[test]
    fn five_right_echoes_are_right() {
        check(&[0, 1, 2, 3, 4].map(echo), &[]);
    }

    #[test]
    fn a_lost_echo_is_seen_wherever_it_was() {
        check(&[1, 2, 3, 4].map(echo), &["lost: sequence 0 never came back"]);
        check(&[0, 1, 4].map(echo), &["lost: sequences 2 to 3 (2) never came back"]);
        check(&[0, 1, 2].map(echo), &["lost: sequences 3 to 4 (2) never came back"]);
        check(
            &[0, 2, 3].map(echo),
            &["lost: sequence 1 never came back", "lost: sequence 4 never came back"],
        );
        check(&[], &["lost: sequences 0 to 4 (5) never came back"]);
    }

    #[test]
    fn a_doubled_echo_is_seen() {
        check(&[0, 1, 1, 2, 3, 4].map(echo), &["doubled: sequence 1 came back twice"]);
        check(&[0, 1, 2, 3, 4, 4].map(echo), &["doubled: sequence 4 came back twice"]);
    }

    #[test]
    fn a_reordered_echo_is_neither_lost_nor_doubled() {
        check(&[0, 2, 1, 3, 4].map(echo), &["reordered: sequence 1 came back late, when 3 was due"]);
        check(&[1, 2, 3, 4, 0].map(echo), &["reordered: sequence 0 came back late, when 5 was due"]);
        check(
            &[0, 2, 1, 1, 3, 4].map(echo),
            &["reordered: sequence 1 came back late, when 3 was due", "doubled: sequence 1 came back twice"],
        );
    }

    #[test]
    fn an_altered_echo_is_seen_at_every_byte() {
        for at in 0..echo(2).len() {
            let (right, wrong) = (echo(2)[at], echo(2)[at] ^ 0x20);
            let mut judge = Judge::new(SPEAKER, SIZES);
            (0..5).for_each(|sequence| assert_eq!(judge.say(), sequence));
            assert_eq!((judge.hear(&echo(0)), judge.hear(&echo(1))), (Ok(()), Ok(())));
            let fault = judge.hear(&edited(2, |payload| payload[at] = wrong)).expect_err("the byte is wrong");
            assert_eq!((fault.kind(), fault.messages()), ("altered", 1), "byte {at}");
            if at > 0 {
                let expected = Fault::Altered { sequence: 2, at, expected: Some(right), got: Some(wrong) };
                assert_eq!(fault, expected);
            }
            assert_eq!((judge.hear(&echo(3)), judge.hear(&echo(4))), (Ok(()), Ok(())));
            assert_eq!(judge.finish(Due { at_least: 5, at_most: 5 }), []);
        }
    }

    #[test]
    fn an_echo_too_short_too_long_or_empty_is_altered() {
        let edits: [fn(&mut Vec<u8>); 4] =
            [|p| p.truncate(23), |p| p.push(0), |p| p.clear(), |p| p.truncate(17)];
        for edit in edits {
            let mut judge = Judge::new(SPEAKER, SIZES);
            judge.say();
            let fault = judge.hear(&edited(0, edit)).expect_err("the length is wrong");
            assert_eq!(fault.kind(), "altered");
            assert_eq!(judge.finish(Due { at_least: 1, at_most: 1 }), []);
        }
    }

    #[test]
    fn a_message_of_another_client_connection_or_run_is_not_ours() {
        let other_client = message(Speaker { client: 8, ..SPEAKER }, 1);
        let other_connection = message(Speaker { connection: 2, ..SPEAKER }, 1);
        check(
            &[echo(0), other_client, echo(1), echo(2), echo(3), echo(4)],
            &["foreign: got sequence 1 of client 8, connection 3, when our 1 was due"],
        );
        check(
            &[echo(0), other_connection, echo(2), echo(3), echo(4)],
            &[
                "foreign: got sequence 1 of client 7, connection 2, when our 1 was due",
                "lost: sequence 1 never came back",
            ],
        );
        let mut judge = Judge::new(SPEAKER, SIZES);
        judge.say();
        let other_run = message(Speaker { seed: 41, ..SPEAKER }, 0);
        assert_eq!(judge.hear(&other_run).map_err(|fault| fault.kind()), Err("altered"));
    }

    #[test]
    fn an_echo_of_what_was_not_said_yet_is_foreign() {
        check(
            &[echo(0), echo(1), echo(2), echo(3), echo(4), echo(5)],
            &["foreign: got sequence 5 of client 7, connection 3, when our 5 was due"],
        );
    }

    #[test]
    fn a_disconnect_may_drop_the_tail_but_not_the_middle_and_must_end_the_echoes() {
        let due = Due { at_least: 0, at_most: 3 };
        check_due(&[0, 1, 2].map(echo), due, &[]);
        check_due(&[0].map(echo), due, &[]);
        check_due(&[], due, &[]);
        check_due(&[0, 2].map(echo), due, &["lost: sequence 1 never came back"]);
        check_due(
            &[0, 1, 2, 3].map(echo),
            due,
            &["after-end: at most 3 echoes were due before the end, 4 came"],
        );
    }

    #[test]
    fn what_a_reset_cut_off_must_be_right_as_far_as_it_came() {
        let cut = |len: usize, edit: fn(&mut Vec<u8>)| {
            let mut judge = Judge::new(SPEAKER, SIZES);
            judge.say();
            let mut payload = echo(0);
            payload.truncate(len);
            edit(&mut payload);
            judge.hear_cut(&payload).map_err(|fault| fault.kind())
        };
        for len in 0..echo(0).len() {
            assert_eq!(cut(len, |_| ()), Ok(()), "{len}");
        }
        assert_eq!(cut(20, |payload| payload[19] ^= 1), Err("altered"));
        assert_eq!(cut(12, |payload| payload[9] ^= 1), Err("altered"));
    }
}
