//! Access control: users, what they may do, and the log of what they were refused.
//!
//! A session holds its user's account. An account's definition is replaced as a whole, under a generation number that
//! every session compares before it trusts what it knew: a change holds from the next command on, on every worker.
//! Who may do everything, and nearly all may, pays for that comparison only.

mod check;
mod file;
mod log;
mod rights;
mod selector;

pub use check::{Denied, check, check_every_key, may};
pub use file::FileError;
pub use log::{Context, Entry, Event, Log, Reason};
pub use rights::{Rights, join_selectors};
pub use selector::{KeyRights, RuleError, Selector};

use crate::registry::Registry;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The user of connections that didn't say who they are.
pub const DEFAULT: &[u8] = b"default";

/// A user as sessions hold it.
#[derive(Debug)]
pub struct Account {
    name: Box<[u8]>,
    /// `None` is the server itself, which may do everything.
    rights: RwLock<Option<Arc<Rights>>>,
}

impl Account {
    fn new(name: &[u8], rights: Rights) -> Arc<Self> {
        Arc::new(Account { name: name.into(), rights: RwLock::new(Some(Arc::new(rights))) })
    }

    /// Nobody's: what comes from files and from our primary. It is shown under the default user's name.
    pub fn of_server() -> Arc<Self> {
        static SERVER: LazyLock<Arc<Account>> =
            LazyLock::new(|| Arc::new(Account { name: DEFAULT.into(), rights: RwLock::new(None) }));
        SERVER.clone()
    }

    /// The user's name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The definition in force.
    pub fn rights(&self) -> Option<Arc<Rights>> {
        self.rights.read().clone()
    }

    /// Whether a key's value may be read.
    pub fn may_read(&self, key: &[u8]) -> bool {
        match &*self.rights.read() {
            Some(rights) => rights.selectors().any(|selector| selector.allows_key(key, KeyRights::READ)),
            None => true,
        }
    }
}

/// An account whose definition changed, and what that was before.
pub type Changed = (Arc<Account>, Option<Arc<Rights>>);

/// The rule that can't be applied, and why.
pub type Refusal = (Vec<u8>, RuleError);

/// All users.
pub struct Acl {
    users: RwLock<BTreeMap<Box<[u8]>, Arc<Account>>>,
    default: Arc<Account>,
    generation: AtomicU64,
    pub log: Mutex<Log>,
}

impl std::fmt::Debug for Acl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acl").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Acl {
    /// The default user alone, who may do everything; a password that isn't empty is asked of it.
    pub fn new(registry: &Registry, password: &[u8]) -> Self {
        let default = Account::new(DEFAULT, Rights::all(registry, true));
        let users = BTreeMap::from([(DEFAULT.into(), default.clone())]);
        let acl = Acl {
            users: RwLock::new(users),
            default,
            generation: AtomicU64::new(1),
            log: Mutex::new(Log::default()),
        };
        acl.set_default_password(registry, password);
        acl
    }

    /// What changes with every change of any user.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The default user.
    pub fn default_account(&self) -> Arc<Account> {
        self.default.clone()
    }

    /// Whether new connections are the default user's without asking.
    pub fn is_open(&self) -> bool {
        self.default.rights().is_some_and(|rights| rights.enabled && rights.nopass)
    }

    /// Whether the default user needs no password: protected mode keeps strangers away then.
    pub fn has_no_password(&self) -> bool {
        self.default.rights().is_some_and(|rights| rights.nopass)
    }

    /// A user by name.
    pub fn user(&self, name: &[u8]) -> Option<Arc<Account>> {
        self.users.read().get(name).cloned()
    }

    /// All users by name.
    pub fn users(&self) -> Vec<Arc<Account>> {
        self.users.read().values().cloned().collect()
    }

    /// The account that a name and a password open.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<Account>> {
        let account = self.user(name)?;
        account.rights()?.accepts(password).then_some(account)
    }

    /// `requirepass`: the only password of the default user; none where it is empty.
    pub fn set_default_password(&self, registry: &Registry, password: &[u8]) {
        let rule = if password.is_empty() { b"nopass".to_vec() } else { [b">", password].concat() };
        let changed = self.change(DEFAULT, &[b"resetpass".to_vec(), rule], registry, true);
        debug_assert!(changed.is_ok(), "both rules are valid");
    }

    /// Applies rules to a user, who is made where there is none: all of them or, with the rule at fault, none. Returns
    /// the account and what it was before.
    pub fn change(
        &self,
        name: &[u8],
        rules: &[Vec<u8>],
        registry: &Registry,
        all_channels: bool,
    ) -> Result<Changed, Refusal> {
        let mut users = self.users.write();
        let before = users.get(name).and_then(|account| account.rights());
        let mut rights = before.as_deref().cloned().unwrap_or_else(|| Rights::new(all_channels));
        rights.all_channels_at_first = all_channels;
        for rule in rules {
            rights.apply(rule, registry).map_err(|error| (rule.clone(), error))?;
        }
        let account = match users.get(name) {
            Some(account) => {
                *account.rights.write() = Some(Arc::new(rights));
                account.clone()
            }
            None => {
                let account = Account::new(name, rights);
                users.insert(name.into(), account.clone());
                account
            }
        };
        self.generation.fetch_add(1, Ordering::Release);
        Ok((account, before))
    }

    /// Removes a user; whoever is still connected as such may do nothing any more.
    pub fn remove(&self, name: &[u8]) -> Option<Arc<Account>> {
        let account = self.users.write().remove(name)?;
        self.revoke(&account);
        Some(account)
    }

    fn revoke(&self, account: &Account) {
        *account.rights.write() = Some(Arc::new(Rights::new(false)));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Replaces all users by those of a file; the default user is as at first where it isn't among them. Returns the
    /// accounts that are gone, and those whose definition changed with what it was.
    fn replace_all(&self, new: BTreeMap<Vec<u8>, Rights>, registry: &Registry) -> Vec<Changed> {
        let mut users = self.users.write();
        let mut changed = Vec::new();
        let mut new = new;
        new.entry(DEFAULT.to_vec()).or_insert_with(|| Rights::all(registry, true));
        users.retain(|name, account| {
            let stays = new.contains_key(&name[..]);
            if !stays {
                self.revoke(account);
                changed.push((account.clone(), None));
            }
            stays
        });
        for (name, rights) in new {
            match users.get(&name[..]) {
                Some(account) => {
                    let before = account.rights();
                    if before.as_deref() != Some(&rights) {
                        *account.rights.write() = Some(Arc::new(rights));
                        changed.push((account.clone(), before));
                    }
                }
                None => {
                    users.insert(name.clone().into(), Account::new(&name, rights));
                }
            }
        }
        self.generation.fetch_add(1, Ordering::Release);
        changed
    }

    /// `name rules` of every user: what CONFIG REWRITE and ACL SAVE write behind the word `user`.
    pub fn lines(&self) -> Vec<Vec<u8>> {
        let users = self.users.read();
        let line = |account: &Arc<Account>| {
            let rights = account.rights().map_or_else(Vec::new, |rights| rights.describe());
            [account.name(), &rights].join(&b' ')
        };
        users.values().map(line).collect()
    }
}
