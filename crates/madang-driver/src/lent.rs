//! Receive memory that a driver lends for the length of a turn.
//!
//! ```text
//!   buffer 3 of the desk   [ conn A's bytes | conn B's bytes | conn A's bytes |  free … ]     holders: kernel? + 3 loans
//!                            └─ Lent        └─ Lent          └─ Lent
//! ```
//!
//! The driver chooses the memory when the bytes are there, so an idle connection pins none. Each [`Lent`] is one loan of
//! one buffer; the [`Desk`] counts loans per buffer (plain counts: all of it stays on the shard's thread) and lists a
//! buffer as returned when its last holder let go.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;

/// Bytes that came, in memory lent by the driver: owned, writable (a record is opened in place), bound to the shard's
/// thread. Dropping it gives the memory back, and that must happen before the next [`poll`](crate::Driver::poll).
pub struct Lent {
    bytes: NonNull<u8>,
    len: u32,
    buffer: u32,
    desk: Rc<Desk>,
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `Desk::lend`'s caller promised `len` initialised bytes at `bytes` that nobody else touches while this
        // loan lives.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access unique, and loans never overlap (promised to `Desk::lend`).
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), self.len as usize) }
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lent({} bytes of buffer {})", self.len, self.buffer)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.desk.loans_out.set(self.desk.loans_out.get() - 1);
        self.desk.let_go(self.buffer);
    }
}

/// Who holds which receive buffer. One per driver, shared with its loans; for drivers, not for engines.
pub struct Desk {
    /// Per buffer: loans out, plus one while the driver (or the kernel behind it) holds the buffer itself.
    holders: Box<[Cell<u32>]>,
    returned: RefCell<Vec<u32>>,
    loans_out: Cell<usize>,
}

impl Desk {
    /// A desk for `buffers` buffers, all held by nobody.
    pub fn new(buffers: usize) -> Rc<Desk> {
        Rc::new(Desk {
            holders: vec![Cell::new(0); buffers].into(),
            returned: RefCell::new(Vec::with_capacity(buffers)),
            loans_out: Cell::new(0),
        })
    }

    /// The driver (or the kernel behind it) holds `buffer` from now on.
    pub fn hold(&self, buffer: u32) {
        let holders = &self.holders[buffer as usize];
        holders.set(holders.get() + 1);
    }

    /// One holder less; the last one lists the buffer as returned.
    pub fn let_go(&self, buffer: u32) {
        let holders = &self.holders[buffer as usize];
        let left = holders.get().checked_sub(1).expect("a buffer is let go as often as it was held");
        holders.set(left);
        if left == 0 {
            self.returned.borrow_mut().push(buffer);
        }
    }

    /// Lends a range of `buffer`.
    ///
    /// # Safety
    /// `bytes` points to `len` initialised bytes inside `buffer`, which stay valid and which nobody else reads, writes or
    /// lends again until this loan has ended (the buffer is then let go).
    pub unsafe fn lend(self: &Rc<Self>, buffer: u32, bytes: NonNull<u8>, len: u32) -> Lent {
        self.hold(buffer);
        self.loans_out.set(self.loans_out.get() + 1);
        Lent { bytes, len, buffer, desk: Rc::clone(self) }
    }

    /// Takes one buffer that nobody holds any more, to be filled or given to the kernel again.
    pub fn take_returned(&self) -> Option<u32> {
        self.returned.borrow_mut().pop()
    }

    /// How many loans are out: zero at each poll.
    pub fn loans_out(&self) -> usize {
        self.loans_out.get()
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Desk({} buffers, {} loans out)", self.holders.len(), self.loans_out.get())
    }
}
