//! A shard's slots.

use super::{Details, Session};

/// The sessions of a shard by local index. Slots are reserved up to the limit and touched when first used; the one left
/// last is used again first.
pub(crate) struct Sessions {
    hot: Vec<Option<Session>>,
    cold: Vec<Option<Details>>,
    free: Vec<u32>,
    limit: usize,
    live: usize,
}

impl Sessions {
    pub(crate) fn new(limit: usize) -> Sessions {
        Sessions {
            hot: Vec::with_capacity(limit),
            cold: Vec::with_capacity(limit),
            free: Vec::with_capacity(limit),
            limit,
            live: 0,
        }
    }

    /// Takes a slot; `None` when all are taken.
    pub(crate) fn reserve(&mut self) -> Option<u32> {
        let local = match self.free.pop() {
            Some(local) => local,
            None if self.hot.len() < self.limit => {
                self.hot.push(None);
                self.cold.push(None);
                (self.hot.len() - 1) as u32
            }
            None => return None,
        };
        self.live += 1;
        Some(local)
    }

    /// Fills a reserved slot.
    pub(crate) fn fill(&mut self, local: u32, session: Session, details: Details) {
        let (hot, cold) = (&mut self.hot[local as usize], &mut self.cold[local as usize]);
        debug_assert!(hot.is_none() && cold.is_none(), "a reserved slot is empty");
        *hot = Some(session);
        *cold = Some(details);
    }

    /// Empties a slot, filled or only reserved.
    pub(crate) fn free(&mut self, local: u32) {
        self.hot[local as usize] = None;
        self.cold[local as usize] = None;
        self.free.push(local);
        self.live -= 1;
    }

    pub(crate) fn get(&self, local: u32) -> Option<&Session> {
        self.hot.get(local as usize)?.as_ref()
    }

    /// It is needed soon.
    #[inline]
    pub(crate) fn prefetch(&self, local: u32) {
        if let Some(slot) = self.hot.get(local as usize) {
            madang_packet::prefetch(slot);
        }
    }

    pub(crate) fn get_mut(&mut self, local: u32) -> Option<&mut Session> {
        self.hot.get_mut(local as usize)?.as_mut()
    }

    pub(crate) fn details(&mut self, local: u32) -> Option<&mut Details> {
        self.cold.get_mut(local as usize)?.as_mut()
    }

    #[cfg(feature = "simulation")]
    pub(crate) fn peek(&self, local: u32) -> Option<&Details> {
        self.cold.get(local as usize)?.as_ref()
    }

    /// Both parts of a session that is there.
    pub(crate) fn both(&mut self, local: u32) -> Option<(&mut Session, &mut Details)> {
        Some((self.hot.get_mut(local as usize)?.as_mut()?, self.cold.get_mut(local as usize)?.as_mut()?))
    }

    /// A session that is there, and where its other part is: which is not looked at, as it lies in another cache line.
    pub(crate) fn apart(&mut self, local: u32) -> Option<(&mut Session, &mut Option<Details>)> {
        Some((self.hot.get_mut(local as usize)?.as_mut()?, self.cold.get_mut(local as usize)?))
    }

    /// One past the highest slot ever used.
    pub(crate) fn end(&self) -> u32 {
        self.hot.len() as u32
    }

    /// Slots taken.
    pub(crate) fn live(&self) -> usize {
        self.live
    }
}
