//! Pooled, reference-counted packets: the memory of a game server's traffic.
//!
//! A server that sends makes and drops millions of small buffers a second, on several threads, and hands the same one to
//! a thousand sessions. This crate is where they come from and where they go back to.
//!
//! ```text
//!                    ┌──────────── Depot ─────────────┐
//!    allocator ─────►│ slabs ─► shelves, one a class  │ figures, budget, trim
//!     64 KiB at a    └──▲───┬──────────────────▲──┬───┘
//!     time              │   │ a batch at a     │  │
//!                    ┌──┴───▼───┐ time      ┌──┴──▼────┐
//!          thread A  │ Magazine │           │ Magazine │  thread B
//!                    └──┬────▲──┘           └──┬────▲──┘
//!                 packet│    │drop             │    │drop
//!                       ▼    │                 │    │
//!                  PacketMut ── freeze ──► Packet ──┘ clone, send to other threads
//! ```
//!
//! - [`Depot`]: one pool. Any number of threads share it; it lives until the last packet is gone.
//! - [`Magazine`]: what one thread has at hand, so that taking and dropping a packet is a few plain loads and stores.
//! - [`PacketMut`]: a packet that is being written: unique, growing, little-endian.
//! - [`Packet`]: a packet that is shared: one pointer, counted inside its own block.
//! - [`Pool`]: the same idea for the game's own objects.
//!
//! ```
//! use madang_packet::{Depot, PoolSettings};
//!
//! let depot = Depot::new(PoolSettings::default());
//! let magazine = depot.magazine();
//! let _installed = magazine.install();
//!
//! let mut packet = magazine.packet(64)?;
//! packet.u16(0x0101).str("hello").u32(42);
//! let packet = packet.freeze();
//!
//! let queues: Vec<_> = packet.shares(3).collect();
//! assert_eq!(queues[2].len(), 2 + (2 + 5) + 4);
//! drop(queues);
//! assert_eq!(depot.figures().in_use.blocks, 0);
//! # Ok::<_, madang_packet::PoolExhausted>(())
//! ```
//!
//! What it deliberately does not do: it knows no frame, session or socket; it reads no values back (`madang-wire` does);
//! it has no global pool and starts no thread; it never blocks, and it holds no lock on any path. There is no public
//! constructor of a packet, no raw pointer to bring one back from, and no way to return one twice.
//!
//! # Safety of the inside
//! Two rules carry the `unsafe` here, and each block names the one that it relies on: the *ownership rule* of blocks
//! (`block.rs`) and the *one-hand rule* of a thread's stock (`magazine.rs`). ([`prefetch`] needs neither.) Models of both
//! under `--cfg loom` are in `tests/loom.rs`.

mod beyond;
mod block;
mod chain;
mod class;
mod depot;
mod figures;
mod magazine;
mod object;
mod packet;
mod packet_mut;
mod prefetch;
mod shelf;
mod slab;
mod sync;
mod trim;
mod values;

pub use class::{HEADROOM, PACKET_BYTES_MAX, TAILROOM};
pub use depot::{Depot, Policy, PoolExhausted, PoolSettings};
pub use figures::{ClassFigures, PoolFigures, Usage};
pub use magazine::{Installed, Magazine};
pub use object::{Pool, Pooled};
pub use packet::{Packet, Shares};
pub use packet_mut::{NoHeadroom, PacketMut};
pub use prefetch::prefetch;
pub use values::Scalar;
