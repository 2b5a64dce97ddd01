//! Work that waits, away from the shards.
//!
//! ```text
//!   callback ── offload(job, then) ──► bounded queue ──► offload thread runs job(state)
//!      session's later messages wait                          │ its result
//!   shard  ◄── control lane ── then(cx, session, result) ◄────┘       (dropped and counted if the session left)
//! ```

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread::{JoinHandle, ThreadId};

use crossbeam_queue::ArrayQueue;

use crate::fabric::Fabric;
use crate::letters::Word;
use crate::{Context, SessionId};

/// What is done with a job's result, on the session's shard; with the session's user object, if it has one.
pub(crate) type Then = Box<dyn FnOnce(&mut Context<'_>, SessionId, Option<&mut dyn Any>) + Send>;

/// The state of an offload thread, such as a database connection; made by a factory on that thread.
pub(crate) type JobState = Box<dyn Any>;

/// Makes an offload thread's state. Called once on each thread, with the thread's number.
pub(crate) type MakeState = Arc<dyn Fn(usize) -> JobState + Send + Sync>;

/// A piece of work on its way to an offload thread.
pub(crate) struct Job {
    /// Where its answer goes.
    pub(crate) shard: usize,
    run: Run,
}

type Run = Box<dyn FnOnce(&mut dyn Any) -> Word + Send>;

/// A session's job that is done, on its way back.
pub(crate) struct Finished {
    pub(crate) session: SessionId,
    pub(crate) holds: bool,
    /// What to do, or the message of the panic.
    pub(crate) outcome: Result<Then, String>,
}

/// Where jobs run: beside the driver, so that in simulation they are actors on virtual time.
pub(crate) trait Jobs: Send + Sync {
    /// Queues a job; gives it back when the queue is full.
    fn submit(&self, job: Job) -> Result<(), Job>;
}

impl Job {
    /// What `run` makes of the thread's state becomes the word that `answer` makes of it; of a panic, its message.
    pub(crate) fn new<T>(
        shard: usize,
        run: impl FnOnce(&mut dyn Any) -> T + Send + 'static,
        answer: impl FnOnce(Result<T, String>) -> Word + Send + 'static,
    ) -> Job {
        Job {
            shard,
            run: Box::new(move |state| {
                answer(catch_unwind(AssertUnwindSafe(|| run(state))).map_err(|panic| panic_text(&*panic)))
            }),
        }
    }

    /// Runs it, on whatever thread that is, and says what came of it, to which shard.
    pub(crate) fn perform(self, state: &mut dyn Any) -> (usize, Word) {
        (self.shard, (self.run)(state))
    }
}

/// The words of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(a panic without words)").chars().take(256).collect()
}

/// Jobs waiting for a thread. Senders never block; threads sleep on a condition variable of their own, which the data path
/// does not touch while nothing is offloaded.
pub(crate) struct JobQueue {
    jobs: ArrayQueue<Job>,
    bell: Bell,
}

#[derive(Default)]
struct Bell {
    closed: std::sync::Mutex<bool>,
    rung: std::sync::Condvar,
}

impl JobQueue {
    pub(crate) fn new(jobs_max: usize) -> Arc<JobQueue> {
        Arc::new(JobQueue { jobs: ArrayQueue::new(jobs_max.max(1)), bell: Bell::default() })
    }

    /// The next job; `None` once the queue is closed and empty.
    fn next(&self) -> Option<Job> {
        let mut closed = self.bell.closed.lock().expect("nothing panics under this lock");
        loop {
            if let Some(job) = self.jobs.pop() {
                return Some(job);
            }
            if *closed {
                return None;
            }
            closed = self.bell.rung.wait(closed).expect("nothing panics under this lock");
        }
    }

    /// No more jobs come: the threads end when the queue is empty.
    pub(crate) fn close(&self) {
        *self.bell.closed.lock().expect("nothing panics under this lock") = true;
        self.bell.rung.notify_all();
    }
}

impl Jobs for JobQueue {
    fn submit(&self, job: Job) -> Result<(), Job> {
        self.jobs.push(job)?;
        // The lock orders this push against a thread that looked and is about to wait; it is held for an instant only.
        drop(self.bell.closed.lock().expect("nothing panics under this lock"));
        self.bell.rung.notify_one();
        Ok(())
    }
}

/// Threads of one kind, and the queue that they work off.
pub(crate) struct Crew {
    queue: Arc<JobQueue>,
    threads: Vec<JoinHandle<()>>,
}

/// What a crew's threads are.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) threads: usize,
    /// Their priority, if it is not the usual one.
    pub(crate) nice: i32,
}

impl Crew {
    /// Starts the threads. Results go through `fabric`'s mailboxes while it lives.
    pub(crate) fn start(
        kind: &Kind,
        queue: Arc<JobQueue>,
        fabric: &Weak<Fabric>,
        make_state: &MakeState,
    ) -> std::io::Result<Crew> {
        let Kind { name, threads, nice } = *kind;
        let mut crew = Crew { queue, threads: Vec::with_capacity(threads) };
        for number in 0..threads {
            let (queue, fabric, make_state) =
                (Arc::clone(&crew.queue), Weak::clone(fabric), Arc::clone(make_state));
            let spawned =
                std::thread::Builder::new().name(format!("madang-{name}-{number}")).spawn(move || {
                    if nice != 0 {
                        if let Err(error) = madang_driver::prioritize_thread(nice) {
                            tracing::warn!(name, number, nice, %error, "the thread keeps the usual priority");
                        }
                    }
                    let mut state = make_state(number);
                    while let Some(job) = queue.next() {
                        let (shard, word) = job.perform(&mut *state);
                        if let Some(fabric) = fabric.upgrade() {
                            fabric.mailboxes[shard].control(word);
                        }
                    }
                });
            match spawned {
                Ok(thread) => crew.threads.push(thread),
                Err(error) => {
                    crew.join();
                    return Err(error);
                }
            }
        }
        Ok(crew)
    }

    pub(crate) fn has_thread(&self, thread: ThreadId) -> bool {
        self.threads.iter().any(|ours| ours.thread().id() == thread)
    }

    /// Lets the threads work off what is queued, and waits for their end.
    pub(crate) fn join(self) {
        self.queue.close();
        for thread in self.threads {
            // Jobs' panics are caught; a state factory's is content's, and is told by the panic hook.
            let _ = thread.join();
        }
    }
}
