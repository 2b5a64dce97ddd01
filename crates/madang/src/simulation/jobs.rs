//! Offloaded jobs as actors on virtual time: they end late, in any order, and now and then in a panic.

use std::sync::Mutex;

use crate::letters::Word;
use crate::offload::{Job, Jobs};

/// Where a simulated house's jobs wait. The lock is the seam's: the trait is shared, although all runs on one thread.
pub(super) struct SimJobs {
    waiting: Mutex<Vec<Job>>,
    jobs_max: usize,
}

impl SimJobs {
    pub(super) fn new(jobs_max: usize) -> SimJobs {
        SimJobs { waiting: Mutex::new(Vec::new()), jobs_max }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting().len()
    }

    /// Runs the job that `choose` picks among so many.
    pub(super) fn perform(&self, choose: impl FnOnce(usize) -> usize) -> Option<(usize, Word)> {
        let job = {
            let mut waiting = self.waiting();
            if waiting.is_empty() {
                return None;
            }
            let index = choose(waiting.len());
            waiting.swap_remove(index)
        };
        Some(job.perform(&mut ()))
    }

    /// The threads end with their work undone: a stop.
    pub(super) fn clear(&self) {
        self.waiting().clear();
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Job>> {
        self.waiting.lock().expect("nothing panics under this lock")
    }
}

impl Jobs for SimJobs {
    fn submit(&self, job: Job) -> Result<(), Job> {
        let mut waiting = self.waiting();
        if waiting.len() >= self.jobs_max {
            return Err(job);
        }
        waiting.push(job);
        Ok(())
    }
}
