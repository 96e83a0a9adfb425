//! Scripts by their SHA1. Those that only EVAL brought are forgotten when there are too many, the longest unused first.

use super::shebang::ScriptFlags;
use parking_lot::Mutex;
use sha1::{Digest as _, Sha1};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Scripts of EVAL that are kept; the reference's number.
const MAX_EVAL_SCRIPTS: usize = 500;

/// A script's SHA1 as 40 hexadecimal digits.
pub type Sha = [u8; 40];

/// A known script. It compiled when it was added.
#[derive(Debug)]
pub struct Script {
    pub sha: Sha,
    /// As the client sent it, first line included.
    pub body: Box<[u8]>,
    pub flags: ScriptFlags,
    /// Forgotten since: whoever still holds it must not run it by its SHA.
    evicted: AtomicBool,
    /// Only EVAL knows it.
    evictable: AtomicBool,
    used: AtomicU64,
    /// It touched keys that it doesn't declare: lock every shard at once.
    pub needs_all: AtomicBool,
}

impl Script {
    /// Whether the cache has forgotten it.
    pub fn is_evicted(&self) -> bool {
        self.evicted.load(Relaxed)
    }

    /// Bytes held.
    pub fn memory_usage(&self) -> usize {
        size_of::<Script>() + self.body.len() + size_of::<Sha>()
    }
}

/// All known scripts.
#[derive(Debug, Default)]
pub struct Cache {
    scripts: Mutex<HashMap<Sha, Arc<Script>>>,
    clock: AtomicU64,
}

/// The SHA1 of a script.
pub fn sha_of(body: &[u8]) -> Sha {
    let mut sha = [0; 40];
    for (pair, byte) in sha.chunks_exact_mut(2).zip(Sha1::digest(body)) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    sha
}

/// A client's SHA1 in any case; `None` where it can't be one.
pub fn parse_sha(text: &[u8]) -> Option<Sha> {
    let mut sha: Sha = text.try_into().ok()?;
    sha.make_ascii_lowercase();
    Some(sha)
}

impl Cache {
    /// A script by its SHA1.
    pub fn get(&self, sha: &Sha) -> Option<Arc<Script>> {
        self.scripts.lock().get(sha).cloned()
    }

    /// The script was used.
    #[inline]
    pub fn touch(&self, script: &Script) {
        if script.evictable.load(Relaxed) {
            script.used.store(self.clock.fetch_add(1, Relaxed), Relaxed);
        }
    }

    /// Adds a script that compiled; SCRIPT LOAD's (`keep`) aren't evicted. Returns the one that is known now and how
    /// many others had to go.
    pub fn add(&self, sha: Sha, body: &[u8], flags: ScriptFlags, keep: bool) -> (Arc<Script>, u64) {
        let mut scripts = self.scripts.lock();
        if let Some(known) = scripts.get(&sha) {
            if keep {
                known.evictable.store(false, Relaxed);
            }
            return (known.clone(), 0);
        }
        let script = Arc::new(Script {
            sha,
            body: body.into(),
            flags,
            evicted: AtomicBool::new(false),
            evictable: AtomicBool::new(!keep),
            used: AtomicU64::new(self.clock.fetch_add(1, Relaxed)),
            needs_all: AtomicBool::new(false),
        });
        let mut evicted = 0;
        if !keep {
            while let Some(oldest) = too_many(&scripts) {
                if let Some(old) = scripts.remove(&oldest) {
                    old.evicted.store(true, Relaxed);
                    evicted += 1;
                }
            }
        }
        scripts.insert(sha, script.clone());
        (script, evicted)
    }

    /// Forgets every script.
    pub fn flush(&self) {
        for (_, script) in self.scripts.lock().drain() {
            script.evicted.store(true, Relaxed);
        }
    }

    /// How many scripts there are, and the bytes that they hold.
    pub fn usage(&self) -> (usize, usize) {
        let scripts = self.scripts.lock();
        (scripts.len(), scripts.values().map(|script| script.memory_usage()).sum())
    }
}

/// The script to go, where another one of EVAL would be one too many.
fn too_many(scripts: &HashMap<Sha, Arc<Script>>) -> Option<Sha> {
    if scripts.len() < MAX_EVAL_SCRIPTS {
        return None;
    }
    let evictable = || scripts.values().filter(|script| script.evictable.load(Relaxed));
    if evictable().count() < MAX_EVAL_SCRIPTS {
        return None;
    }
    evictable().min_by_key(|script| script.used.load(Relaxed)).map(|script| script.sha)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(cache: &Cache, n: usize, keep: bool) -> (Arc<Script>, u64) {
        let body = format!("return {n}");
        cache.add(sha_of(body.as_bytes()), body.as_bytes(), ScriptFlags::UNSTATED, keep)
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let cache = Cache::default();
        let (kept, _) = add(&cache, 1_000_000, true);
        let (first, _) = add(&cache, 0, false);
        let (second, _) = add(&cache, 1, false);
        (2..500).for_each(|n| assert_eq!(add(&cache, n, false).1, 0));
        cache.touch(&first);
        assert_eq!(add(&cache, 500, false).1, 1);
        assert!(second.is_evicted() && !first.is_evicted() && !kept.is_evicted());
        assert_eq!(cache.usage().0, 501);
        cache.flush();
        assert!(kept.is_evicted() && cache.get(&kept.sha).is_none());
    }

    #[test]
    fn sha_texts() {
        let sha = sha_of(b"return 1");
        assert_eq!(&sha, b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(parse_sha(b"E0E1F9fabfc9d4800c877a703b823ac0578ff8db"), Some(sha));
        assert_eq!(parse_sha(b"x"), None);
    }
}
