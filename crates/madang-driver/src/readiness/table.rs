//! The places of a driver's connections, and the queue of those that are due.

use std::collections::VecDeque;

use super::connection::Connection;
use crate::Conn;

/// Reserved at start and never grown; a place is first touched when it is first used.
pub(super) struct Table {
    places: Vec<Connection>,
    vacant: Vec<u32>,
    /// Places with something to try or to tell, first come first served. Each is in it at most once (`queued`).
    due: VecDeque<u32>,
    places_max: usize,
}

impl Table {
    pub(super) fn new(places_max: usize) -> Table {
        let places_max = places_max.min(Conn::INDEX_MAX as usize + 1);
        Table {
            places: Vec::with_capacity(places_max),
            vacant: Vec::with_capacity(places_max),
            due: VecDeque::with_capacity(places_max),
            places_max,
        }
    }

    /// Connections in it.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    /// A place for a connection, or `None` when all are taken. The one that was vacated last: its memory is warm.
    pub(super) fn take(&mut self) -> Option<Conn> {
        let index = match self.vacant.pop() {
            Some(index) => index,
            None if self.places.len() < self.places_max => {
                self.places.push(Connection::vacant());
                self.places.len() as u32 - 1
            }
            None => return None,
        };
        Some(Conn::new(index, self.places[index as usize].generation))
    }

    /// # Panics
    /// When `conn` was retired.
    pub(super) fn at(&mut self, conn: Conn) -> &mut Connection {
        let connection = &mut self.places[conn.index()];
        assert_eq!(connection.generation, conn.generation(), "{conn:?} was retired");
        connection
    }

    /// The place by its number, for edges: whoever is in it now. An edge that is late by a whole life (a descriptor that a
    /// forked child still held) costs its successor one try in vain and nothing else.
    pub(super) fn place(&mut self, index: usize) -> Option<&mut Connection> {
        self.places.get_mut(index)
    }

    /// Gives the place back.
    pub(super) fn vacate(&mut self, conn: Conn) {
        self.at(conn).vacate();
        self.vacant.push(conn.index() as u32);
    }

    /// Queues the place if something is due there.
    pub(super) fn queue_if_due(&mut self, index: usize) {
        let connection = &mut self.places[index];
        if !connection.queued && connection.is_due() {
            connection.queued = true;
            self.due.push_back(index as u32);
        }
    }

    /// How many places are queued.
    pub(super) fn due(&self) -> usize {
        self.due.len()
    }

    /// Takes the next place out of the queue, with its present name.
    pub(super) fn next_due(&mut self) -> Option<(Conn, &mut Connection)> {
        let index = self.due.pop_front()?;
        let connection = &mut self.places[index as usize];
        connection.queued = false;
        Some((Conn::new(index, connection.generation), connection))
    }

    /// Aborts and empties every place.
    pub(super) fn clear(&mut self) {
        self.places.iter_mut().for_each(Connection::abort);
        self.places.clear();
        self.vacant.clear();
        self.due.clear();
    }
}
