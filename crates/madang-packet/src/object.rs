//! `Pool<T>`: the game's own objects.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_queue::ArrayQueue;

/// A bounded pool of objects, shared between threads: a handle that can be cloned and sent anywhere.
///
/// For what is made and thrown away all the time: monsters, bullets, query rows. An object that is taken goes back by
/// itself when its [`Pooled`] is dropped. Two policies say what "made" means:
///
/// - [`construct_once`](Pool::construct_once): the constructor runs when the pool grows; a used object is *reset* when it
///   is taken again. What it owns (a vector's memory) stays warm.
/// - [`construct_each`](Pool::construct_each): the constructor runs at each take and the destructor at each return; the
///   pool only saves the allocation.
///
/// ```
/// use madang_packet::Pool;
///
/// let paths = Pool::construct_once(1000, || Vec::with_capacity(64), Vec::clear);
/// let mut path = paths.take().expect("fewer than 1000 are out");
/// path.push((3, 4));
/// drop(path);
/// assert_eq!(paths.take().unwrap().capacity(), 64);
/// # assert!(paths.take().unwrap().is_empty());
/// ```
pub struct Pool<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    /// Places that are not out. One that holds no object is constructed into at the next take.
    idle: ArrayQueue<Place<T>>,
    most: usize,
    /// Places that exist, idle or out; at most `most`.
    made: AtomicUsize,
    out: AtomicUsize,
    construct: Box<dyn Fn() -> T + Send + Sync>,
    /// `None` when each take constructs.
    reset: Option<Reset<T>>,
}

type Place<T> = Box<Option<T>>;
type Reset<T> = Box<dyn Fn(&mut T) + Send + Sync>;

impl<T> Pool<T> {
    /// A pool of at most `most` objects, each constructed once and reset before it is used again.
    ///
    /// `reset` runs on the thread that takes, just before it gets the object.
    pub fn construct_once(
        most: usize,
        construct: impl Fn() -> T + Send + Sync + 'static,
        reset: impl Fn(&mut T) + Send + Sync + 'static,
    ) -> Pool<T> {
        Pool::new(most, Box::new(construct), Some(Box::new(reset)))
    }

    /// A pool of memory for at most `most` objects, each constructed when it is taken and dropped when it returns.
    pub fn construct_each(most: usize, construct: impl Fn() -> T + Send + Sync + 'static) -> Pool<T> {
        Pool::new(most, Box::new(construct), None)
    }

    fn new(most: usize, construct: Box<dyn Fn() -> T + Send + Sync>, reset: Option<Reset<T>>) -> Pool<T> {
        // A queue cannot have room for nothing.
        let idle = ArrayQueue::new(most.max(1));
        let (made, out) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Pool { shared: Arc::new(Shared { idle, most, made, out, construct, reset }) }
    }

    /// An object, or `None` when as many are out as the pool may have. Never waits.
    ///
    /// A panic of the constructor or of the reset passes through; the place goes back to the pool.
    pub fn take(&self) -> Option<Pooled<T>> {
        let place = self.shared.idle.pop().or_else(|| self.shared.new_place())?;
        self.shared.out.fetch_add(1, Ordering::Relaxed);
        let mut pooled = Pooled { place: ManuallyDrop::new(place), shared: Arc::clone(&self.shared) };
        match (pooled.place.as_mut(), &self.shared.reset) {
            (Some(object), Some(reset)) => reset(object),
            (object, _) => *object = Some((self.shared.construct)()),
        }
        Some(pooled)
    }

    /// How many objects are out.
    pub fn out(&self) -> usize {
        self.shared.out.load(Ordering::Relaxed)
    }

    /// How many places for an object the pool has made: its high-water mark.
    pub fn made(&self) -> usize {
        self.shared.made.load(Ordering::Relaxed)
    }
}

impl<T> Shared<T> {
    fn new_place(&self) -> Option<Place<T>> {
        let more = |made| (made < self.most).then_some(made + 1);
        self.made.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Box::new(None))
    }
}

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Pool<T> {
        Pool { shared: Arc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { most, .. } = *self.shared;
        f.debug_struct("Pool")
            .field("out", &self.out())
            .field("made", &self.made())
            .field("most", &most)
            .finish()
    }
}

/// An object out of a [`Pool`], which it goes back to when this is dropped, on any thread.
pub struct Pooled<T> {
    /// Holds an object from the end of `take` on. Taken out by `drop` alone.
    place: ManuallyDrop<Place<T>>,
    shared: Arc<Shared<T>>,
}

impl<T> Deref for Pooled<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.place.as_ref().as_ref().expect("a place that is out holds an object")
    }
}

impl<T> DerefMut for Pooled<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.place.as_mut().as_mut().expect("a place that is out holds an object")
    }
}

impl<T> Drop for Pooled<T> {
    fn drop(&mut self) {
        // SAFETY: nothing uses the place after this.
        let mut place = unsafe { ManuallyDrop::take(&mut self.place) };
        if self.shared.reset.is_none() {
            *place = None;
        }
        // Out before idle: who finds the place idle never counts more out than there are.
        self.shared.out.fetch_sub(1, Ordering::Relaxed);
        let pushed = self.shared.idle.push(place);
        debug_assert!(pushed.is_ok(), "the queue has room for every place that was made");
    }
}

impl<T: fmt::Debug> fmt::Debug for Pooled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
