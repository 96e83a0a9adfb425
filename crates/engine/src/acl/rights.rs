//! What a user may do: passwords and selectors. Immutable once it is in force; a change makes a new one.

use super::selector::{RuleError, Selector};
use crate::registry::Registry;
use sha2::{Digest as _, Sha256};

/// The SHA-256 of a password.
pub type PasswordHash = [u8; 32];

/// One user's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    pub enabled: bool,
    pub nopass: bool,
    passwords: Vec<PasswordHash>,
    pub root: Selector,
    pub selectors: Vec<Selector>,
    /// What `reset` makes of the channels: `acl-pubsub-default`.
    pub(super) all_channels_at_first: bool,
}

impl Rights {
    /// A new user's: off, no password, no commands, no keys.
    pub fn new(all_channels: bool) -> Self {
        Rights {
            enabled: false,
            nopass: false,
            passwords: Vec::new(),
            root: Selector::new(all_channels),
            selectors: Vec::new(),
            all_channels_at_first: all_channels,
        }
    }

    /// Everything, without a password.
    pub fn all(registry: &Registry, all_channels: bool) -> Self {
        let root = Selector::all(registry);
        Rights { enabled: true, nopass: true, root, ..Rights::new(all_channels) }
    }

    /// Whether the user may do everything.
    pub fn is_unrestricted(&self) -> bool {
        self.root.is_unrestricted()
    }

    /// All selectors, in the order in which they are asked.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.selectors)
    }

    /// Applies one rule.
    pub fn apply(&mut self, rule: &[u8], registry: &Registry) -> Result<(), RuleError> {
        match rule.to_ascii_lowercase().as_slice() {
            // An empty rule changes nothing.
            b"" | b"sanitize-payload" | b"skip-sanitize-payload" => {}
            b"on" => self.enabled = true,
            b"off" => self.enabled = false,
            b"nopass" => {
                self.nopass = true;
                self.passwords.clear();
            }
            b"resetpass" => {
                self.nopass = false;
                self.passwords.clear();
            }
            b"reset" => *self = Rights::new(self.all_channels_at_first),
            b"clearselectors" => self.selectors.clear(),
            _ => match rule {
                [b'>', password @ ..] => self.add_password(hash(password)),
                [b'#', text @ ..] => self.add_password(parse_hash(text)?),
                [b'<', password @ ..] => self.remove_password(&hash(password))?,
                [b'!', text @ ..] => self.remove_password(&parse_hash(text)?)?,
                [b'(', inner @ .., b')'] => {
                    let mut selector = Selector::new(self.all_channels_at_first);
                    for rule in words(inner) {
                        selector.apply(rule, registry)?;
                    }
                    self.selectors.push(selector);
                }
                _ => self.root.apply(rule, registry)?,
            },
        }
        Ok(())
    }

    fn add_password(&mut self, hash: PasswordHash) {
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
        self.nopass = false;
    }

    fn remove_password(&mut self, hash: &PasswordHash) -> Result<(), RuleError> {
        let at = self.passwords.iter().position(|known| known == hash).ok_or(RuleError::NoSuchPassword)?;
        self.passwords.remove(at);
        Ok(())
    }

    /// Whether a password opens the account. Takes the same time for every wrong one.
    pub fn accepts(&self, password: &[u8]) -> bool {
        let given = hash(password);
        let same = |known: &PasswordHash| {
            known.iter().zip(&given).fold(0u8, |sum, (known, given)| sum | (known ^ given)) == 0
        };
        self.enabled && (self.nopass || self.passwords.iter().fold(false, |any, known| any | same(known)))
    }

    /// The hashes of all passwords, in hexadecimal.
    pub fn password_texts(&self) -> Vec<String> {
        self.passwords.iter().map(|hash| hash.iter().map(|byte| format!("{byte:02x}")).collect()).collect()
    }

    /// The rules that make such a user out of a new one, as ACL LIST, files and CONFIG REWRITE have them.
    pub fn describe(&self) -> Vec<u8> {
        let mut out = if self.enabled { b"on ".to_vec() } else { b"off ".to_vec() };
        if self.nopass {
            out.extend_from_slice(b"nopass ");
        }
        for hash in self.password_texts() {
            out.extend_from_slice(format!("#{hash} ").as_bytes());
        }
        out.extend_from_slice(&self.root.describe());
        for selector in &self.selectors {
            out.extend_from_slice(b" (");
            out.extend_from_slice(&selector.describe());
            out.push(b')');
        }
        out
    }
}

/// The words of a rule list.
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty())
}

/// Selectors whose rules came as several words are one rule again. The error is the word at which one begins that
/// doesn't end.
pub fn join_selectors<'a>(rules: &[&'a [u8]]) -> Result<Vec<Vec<u8>>, &'a [u8]> {
    let mut out = Vec::with_capacity(rules.len());
    let mut open: Option<(&'a [u8], Vec<u8>)> = None;
    for rule in rules {
        match &mut open {
            Some((_, text)) => {
                text.push(b' ');
                text.extend_from_slice(rule);
            }
            None if rule.starts_with(b"(") => open = Some((rule, rule.to_vec())),
            None => out.push(rule.to_vec()),
        }
        if let Some((_, text)) = &open
            && text.ends_with(b")")
        {
            out.extend(open.take().map(|(_, text)| text));
        }
    }
    match open {
        Some((rule, _)) => Err(rule),
        None => Ok(out),
    }
}

fn hash(password: &[u8]) -> PasswordHash {
    Sha256::digest(password).into()
}

fn parse_hash(text: &[u8]) -> Result<PasswordHash, RuleError> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(RuleError::BadHash),
    };
    let text: &[u8; 64] = text.try_into().map_err(|_| RuleError::BadHash)?;
    let mut out = [0; 32];
    for (to, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        if let [high, low] = pair {
            *to = digit(*high)? << 4 | digit(*low)?;
        }
    }
    Ok(out)
}
