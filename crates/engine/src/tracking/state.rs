//! One client's tracking, kept by its session.

use crate::clients::ClientId;
use std::sync::Arc;

/// Which reads are tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every read.
    Default,
    /// Reads right behind CLIENT CACHING YES.
    OptIn,
    /// All but those right behind CLIENT CACHING NO.
    OptOut,
    /// None: the client hears of all keys with its prefixes.
    Broadcast,
}

/// How the client tracks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackingState {
    pub mode: Mode,
    pub noloop: bool,
    pub redirect: Option<ClientId>,
    /// CLIENT CACHING was given for the next command or transaction.
    pub caching: bool,
    /// BCAST's; in order.
    pub prefixes: Vec<Arc<[u8]>>,
}

impl TrackingState {
    /// Whether the keys of a read are to be remembered now.
    pub fn remembers(&self) -> bool {
        match self.mode {
            Mode::Default => true,
            Mode::OptIn => self.caching,
            Mode::OptOut => !self.caching,
            Mode::Broadcast => false,
        }
    }
}
