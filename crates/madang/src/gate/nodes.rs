//! Which nodes are here, and in which life.

use std::collections::BTreeMap;

use madang_wire::lan::RefusalReason;

use crate::{Node, SessionId};

/// Nodes remembered at most: some hundreds of servers is what a LAN has. The longest gone is forgotten first.
const NODES_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Nodes {
    known: BTreeMap<(String, String), Life>,
    clock: u64,
}

#[derive(Debug)]
struct Life {
    incarnation: u64,
    sessions: Vec<SessionId>,
    /// When it was last seen, in steps of this table.
    seen: u64,
}

impl Nodes {
    /// Lets a node in unless it has been here in a later life. Answers the sessions of earlier lives, which make way.
    /// Links of one and the same life stand beside each other.
    pub(super) fn admit(&mut self, node: &Node) -> Result<Vec<SessionId>, RefusalReason> {
        self.clock += 1;
        let key = (node.service.clone(), node.name.clone());
        if let Some(life) = self.known.get_mut(&key) {
            life.seen = self.clock;
            if node.incarnation < life.incarnation {
                return Err(RefusalReason::Incarnation);
            }
            if node.incarnation == life.incarnation {
                return Ok(Vec::new());
            }
            life.incarnation = node.incarnation;
            return Ok(std::mem::take(&mut life.sessions));
        }
        if self.known.len() >= NODES_MAX {
            self.forget_one();
        }
        self.known
            .insert(key, Life { incarnation: node.incarnation, sessions: Vec::new(), seen: self.clock });
        Ok(Vec::new())
    }

    fn forget_one(&mut self) {
        let absent =
            self.known.iter().filter(|(_, life)| life.sessions.is_empty()).min_by_key(|(_, life)| life.seen);
        if let Some(key) = absent.map(|(key, _)| key.clone()) {
            self.known.remove(&key);
        }
    }

    /// False if a later life was let in since: this one makes way.
    pub(super) fn joined(&mut self, node: &Node, id: SessionId) -> bool {
        let Some(life) = self.life(node) else { return false };
        life.sessions.push(id);
        true
    }

    pub(super) fn left(&mut self, node: &Node, id: SessionId) {
        if let Some(life) = self.life(node) {
            life.sessions.retain(|session| *session != id);
        }
    }

    fn life(&mut self, node: &Node) -> Option<&mut Life> {
        let life = self.known.get_mut(&(node.service.clone(), node.name.clone()))?;
        (life.incarnation == node.incarnation).then_some(life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(incarnation: u64) -> Node {
        Node { service: "chat".into(), name: "chat-1".into(), incarnation, app_version: 1 }
    }

    #[test]
    fn l05_an_older_life_is_refused_and_a_newer_one_replaces() {
        let mut nodes = Nodes::default();
        let id = SessionId::from_u64(7).unwrap();
        assert_eq!(nodes.admit(&node(5)), Ok(vec![]));
        nodes.joined(&node(5), id);
        assert_eq!(nodes.admit(&node(5)), Ok(vec![]), "two links of one life");
        assert_eq!(nodes.admit(&node(4)), Err(RefusalReason::Incarnation));
        assert_eq!(nodes.admit(&node(6)), Ok(vec![id]));
        nodes.left(&node(5), id);
        assert_eq!(nodes.admit(&node(5)), Err(RefusalReason::Incarnation), "also when the newer one is gone");
    }

    #[test]
    fn nodes_are_bounded_and_those_that_are_here_are_kept() {
        let mut nodes = Nodes::default();
        let named = |number: usize| Node { name: format!("n{number}"), ..node(1) };
        nodes.admit(&named(0)).unwrap();
        nodes.joined(&named(0), SessionId::from_u64(1).unwrap());
        for number in 1..NODES_MAX + 100 {
            nodes.admit(&named(number)).unwrap();
        }
        assert_eq!(nodes.known.len(), NODES_MAX);
        assert!(nodes.life(&named(0)).is_some());
    }
}
