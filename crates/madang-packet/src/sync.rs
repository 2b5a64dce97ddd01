//! The atomics, cells and thread-locals of this crate: the real ones, or loom's under `--cfg loom`. Chosen here and
//! nowhere else, so that what the models explore is the code that ships.

#[cfg(not(loom))]
mod chosen {
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
    pub(crate) use std::thread_local;

    /// `std`'s cell behind loom's face, which knows when an access begins and ends.
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
            write(self.0.get())
        }
    }
}

#[cfg(loom)]
mod chosen {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

    /// loom needs a yield where a thread waits for another.
    pub(crate) fn spin_loop() {
        loom::thread::yield_now();
    }

    /// loom's does not know `const`.
    macro_rules! without_const {
        ($(#[$doc:meta])* static $name:ident: $type:ty = const { $init:expr };) => {
            loom::thread_local! { $(#[$doc])* static $name: $type = $init; }
        };
    }
    pub(crate) use without_const as thread_local;
}

pub(crate) use chosen::*;
