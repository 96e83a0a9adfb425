//! The subscribers of one name, by worker, so that a message takes one post per worker.

use crate::clients::{ClientId, ClientInfo};
use crate::outbox::{Member, Outbox, Push};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::Arc;

/// From this many clients of one worker on, their places are indexed: when they all leave, a search through the list
/// for each would take quadratic time.
const INDEXED: usize = 64;

/// The clients of one worker.
#[derive(Debug)]
struct Group {
    worker: usize,
    /// Shared with messages that are under way; copied on change only then.
    members: Arc<Vec<Member>>,
    index: HashMap<ClientId, usize>,
}

/// All clients that hear a message.
#[derive(Debug, Default)]
pub struct Audience {
    groups: SmallVec<[Group; 1]>,
}

impl Group {
    fn add(&mut self, member: Member) {
        let members = Arc::make_mut(&mut self.members);
        members.push(member);
        if !self.index.is_empty() {
            self.index.insert(member.id, members.len() - 1);
        } else if members.len() >= INDEXED {
            self.index = members.iter().enumerate().map(|(at, member)| (member.id, at)).collect();
        }
    }

    fn remove(&mut self, client: ClientId) {
        let known = match self.index.remove(&client) {
            None if self.index.is_empty() => self.members.iter().position(|member| member.id == client),
            found => found,
        };
        let Some(at) = known.filter(|at| *at < self.members.len()) else { return };
        let members = Arc::make_mut(&mut self.members);
        members.swap_remove(at);
        if let Some(moved) = members.get(at).filter(|_| !self.index.is_empty()) {
            self.index.insert(moved.id, at);
        }
    }
}

impl Audience {
    /// All clients.
    pub fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.groups.iter().flat_map(|group| group.members.iter().map(|member| member.id))
    }

    /// Adds a client that isn't among them yet.
    pub fn add(&mut self, client: &ClientInfo) {
        let member = Member::of(client);
        match self.groups.iter_mut().find(|group| group.worker == client.worker) {
            Some(group) => group.add(member),
            None => self.groups.push(Group {
                worker: client.worker,
                members: Arc::new(vec![member]),
                index: HashMap::new(),
            }),
        }
    }

    /// Removes a client.
    pub fn remove(&mut self, client: &ClientInfo) {
        if let Some(at) = self.groups.iter().position(|group| group.worker == client.worker) {
            self.groups[at].remove(client.id);
            if self.groups[at].members.is_empty() {
                self.groups.swap_remove(at);
            }
        }
    }

    /// Posts one message per worker; returns how many clients hear it.
    pub fn send(&self, outbox: &mut Outbox, push: impl Fn(Arc<Vec<Member>>) -> Push) -> usize {
        self.groups
            .iter()
            .map(|group| {
                outbox.push(group.worker, push(group.members.clone()));
                group.members.len()
            })
            .sum()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.members.len()).sum()
    }

    /// Whether nobody is left.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::ClientFlags;
    use std::collections::BTreeSet;

    fn client(id: u64) -> ClientInfo {
        let none = String::new;
        ClientInfo::new(ClientId(id), id as usize % 3, none(), none(), 0, 0, ClientFlags::empty())
    }

    #[test]
    fn members_come_and_go_as_in_a_set() {
        let mut audience = Audience::default();
        let mut model = BTreeSet::new();
        let mut rng = kara_base::rng::Rng::new(7);
        for _ in 0..20_000 {
            let id = rng.below(500);
            if model.insert(id) {
                audience.add(&client(id));
            } else if rng.below(2) == 0 {
                model.remove(&id);
                audience.remove(&client(id));
            }
            assert_eq!(audience.len(), model.len());
        }
        let mut seen: Vec<u64> =
            audience.groups.iter().flat_map(|g| g.members.iter().map(|m| m.id.0)).collect();
        seen.sort_unstable();
        assert!(seen.iter().eq(model.iter()));
        model.iter().for_each(|id| audience.remove(&client(*id)));
        assert!(audience.is_empty());
    }
}
