//! What whoever started a run says to it while it goes on: a line of standard input each.
//!
//! | word | means |
//! |---|---|
//! | `come` | those beside the connections come from now on |
//! | `rest` | no more of them come; those who are here go as they would |
//! | `end` | the run comes to its end; so does the end of the input, or a run would outlive who asked for it |

use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::signals::Signals;

/// Whether visitors are to come now.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    come: Arc<AtomicBool>,
}

impl Words {
    /// Nobody says anything: they come all the time.
    pub(crate) fn none() -> Self {
        Self { come: Arc::new(AtomicBool::new(true)) }
    }

    /// Listens for the rest of the process, and raises `end` at the last word.
    pub(crate) fn listen(end: Signals) -> Self {
        let words = Self { come: Arc::new(AtomicBool::new(false)) };
        let heard = words.clone();
        std::thread::spawn(move || {
            heard.follow(std::io::stdin().lock());
            end.raise();
        });
        words
    }

    pub(crate) fn come(&self) -> bool {
        self.come.load(Ordering::Acquire)
    }

    /// Follows the words up to the last one.
    fn follow(&self, input: impl BufRead) {
        for line in input.lines().map_while(Result::ok) {
            match line.trim() {
                "come" => self.come.store(true, Ordering::Release),
                "rest" => self.come.store(false, Ordering::Release),
                "end" => return,
                // A word of a later version.
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_what_is_behind_the_end_does_not() {
        for (input, come) in [
            ("come\n", true),
            ("come\nrest\n", false),
            ("come\nend\nrest\n", true),
            ("what\n", false),
            ("", false),
        ] {
            let words = Words { come: Arc::default() };
            words.follow(input.as_bytes());
            assert_eq!(words.come(), come, "{input:?}");
        }
        assert!(Words::none().come());
    }
}
