//! The places of a driver's connections, and the queue of those that are due.

use std::collections::VecDeque;

use crate::Conn;

/// What a driver keeps of a connection.
pub(crate) trait Place {
    /// An empty place that was never used.
    fn vacant() -> Self;

    /// How often the place was used before.
    fn generation(&self) -> u32;

    /// Whether it has something to try or to tell.
    fn is_due(&self) -> bool;

    /// Whether the place stands in the queue of those that are due: the table's own note.
    fn queued(&mut self) -> &mut bool;

    /// Moves everything out; the next one here has another generation. `queued` stays as it is.
    ///
    /// # Panics
    /// While something of it is in flight: the retire rule.
    fn vacate(&mut self);
}

/// Reserved at start and never grown; a place is first touched when it is first used.
pub(crate) struct Table<P> {
    places: Vec<P>,
    vacant: Vec<u32>,
    /// Places with something to try or to tell, first come first served. Each is in it at most once (`queued`).
    due: VecDeque<u32>,
    places_max: usize,
}

impl<P: Place> Table<P> {
    pub(crate) fn new(places_max: usize) -> Table<P> {
        let places_max = places_max.min(Conn::INDEX_MAX as usize + 1);
        Table {
            places: Vec::with_capacity(places_max),
            vacant: Vec::with_capacity(places_max),
            due: VecDeque::with_capacity(places_max),
            places_max,
        }
    }

    /// Connections in it.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    /// A place for a connection, or `None` when all are taken. The one that was vacated last: its memory is warm.
    pub(crate) fn take(&mut self) -> Option<Conn> {
        let index = match self.vacant.pop() {
            Some(index) => index,
            None if self.places.len() < self.places_max => {
                self.places.push(P::vacant());
                self.places.len() as u32 - 1
            }
            None => return None,
        };
        Some(Conn::new(index, self.places[index as usize].generation()))
    }

    /// # Panics
    /// When `conn` was retired.
    pub(crate) fn at(&mut self, conn: Conn) -> &mut P {
        let connection = &mut self.places[conn.index()];
        assert_eq!(connection.generation(), conn.generation(), "{conn:?} was retired");
        connection
    }

    /// The place by its number, for edges: whoever is in it now. An edge that is late by a whole life (a descriptor that a
    /// forked child still held) costs its successor one try in vain and nothing else.
    pub(crate) fn place(&mut self, index: usize) -> Option<&mut P> {
        self.places.get_mut(index)
    }

    /// Gives the place back.
    pub(crate) fn vacate(&mut self, conn: Conn) {
        self.at(conn).vacate();
        self.vacant.push(conn.index() as u32);
    }

    /// Queues the place if something is due there.
    pub(crate) fn queue_if_due(&mut self, index: usize) {
        let connection = &mut self.places[index];
        if connection.is_due() && !std::mem::replace(connection.queued(), true) {
            self.due.push_back(index as u32);
        }
    }

    /// How many places are queued.
    pub(crate) fn due(&self) -> usize {
        self.due.len()
    }

    /// Takes the next place out of the queue, with its present name.
    pub(crate) fn next_due(&mut self) -> Option<(Conn, &mut P)> {
        let index = self.due.pop_front()?;
        let connection = &mut self.places[index as usize];
        *connection.queued() = false;
        Some((Conn::new(index, connection.generation()), connection))
    }

    /// Every place that was ever used, the vacant ones too.
    pub(crate) fn places(&mut self) -> impl Iterator<Item = &mut P> {
        self.places.iter_mut()
    }

    /// Empties every place.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.vacant.clear();
        self.due.clear();
    }
}
