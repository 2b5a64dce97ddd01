//! Whose each connection is.

use madang_driver::Conn;

/// What a connection of the driver carries. Promotion changes the owner; no operation is submitted anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A peer that is not joined: its place among the embryos.
    Embryo(u32),
    /// A session: its slot.
    Session(u32),
}

/// The owner of every connection, by the driver's index; a recycled index answers to its own generation only.
#[derive(Default)]
pub(crate) struct Connections {
    owners: Vec<Option<(u32, Owner)>>,
}

impl Connections {
    pub(crate) fn set(&mut self, conn: Conn, owner: Owner) {
        if self.owners.len() <= conn.index() {
            self.owners.resize(conn.index() + 1, None);
        }
        self.owners[conn.index()] = Some((conn.generation(), owner));
    }

    pub(crate) fn of(&self, conn: Conn) -> Option<Owner> {
        match self.owners.get(conn.index()) {
            Some(Some((generation, owner))) if *generation == conn.generation() => Some(*owner),
            _ => None,
        }
    }

    pub(crate) fn clear(&mut self, conn: Conn) {
        if self.of(conn).is_some() {
            self.owners[conn.index()] = None;
        }
    }
}
