//! The atomics, cells and thread-locals of this crate: the real ones, or loom's under `--cfg loom`. Chosen here and
//! nowhere else, so that what the models explore is the code that ships.

#[cfg(not(loom))]
mod chosen {
    use std::cell::Cell;
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

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

    /// One pointer a thread. Const-initialised and without a destructor, so that reading it is one load: no check
    /// whether it was made yet, none whether it is gone.
    pub(crate) struct ThreadPointer<T: 'static>(pub(crate) &'static std::thread::LocalKey<Cell<*const T>>);

    impl<T> ThreadPointer<T> {
        #[inline(always)]
        pub(crate) fn load(&self) -> *const T {
            self.0.get()
        }

        pub(crate) fn store(&self, pointer: *const T) {
            self.0.set(pointer);
        }
    }

    macro_rules! thread_pointer {
        ($(#[$doc:meta])* $vis:vis static $name:ident: $type:ty) => {
            $(#[$doc])*
            $vis static $name: $crate::sync::ThreadPointer<$type> = {
                thread_local! {
                    static KEY: std::cell::Cell<*const $type> = const { std::cell::Cell::new(std::ptr::null()) };
                }
                $crate::sync::ThreadPointer(&KEY)
            };
        };
    }
    pub(crate) use thread_pointer;
}

#[cfg(loom)]
mod chosen {
    use std::cell::Cell;

    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

    /// loom needs a yield where a thread waits for another.
    pub(crate) fn spin_loop() {
        loom::thread::yield_now();
    }

    pub(crate) struct ThreadPointer<T: 'static>(pub(crate) &'static loom::thread::LocalKey<Cell<*const T>>);

    impl<T> ThreadPointer<T> {
        /// Null once the thread's locals are gone: loom, unlike a real thread without destructors, takes them away.
        pub(crate) fn load(&self) -> *const T {
            self.0.try_with(Cell::get).unwrap_or(std::ptr::null())
        }

        pub(crate) fn store(&self, pointer: *const T) {
            self.0.with(|cell| cell.set(pointer));
        }
    }

    macro_rules! thread_pointer {
        ($(#[$doc:meta])* $vis:vis static $name:ident: $type:ty) => {
            $(#[$doc])*
            $vis static $name: $crate::sync::ThreadPointer<$type> = {
                loom::thread_local! {
                    static KEY: std::cell::Cell<*const $type> = std::cell::Cell::new(std::ptr::null());
                }
                $crate::sync::ThreadPointer(&KEY)
            };
        };
    }
    pub(crate) use thread_pointer;
}

pub(crate) use chosen::*;
