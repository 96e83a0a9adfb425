//! The 24-bit access record in every entry: an LRU clock (seconds), or under an LFU policy the minute of the last
//! decay (16 bits) and a logarithmic counter (8 bits). OBJECT IDLETIME/FREQ and eviction read it.

use kara_base::rng::Rng;

/// Seconds fit 24 bits for 194 days; idle times are computed modulo that, as the reference does.
const LRU_MASK: u32 = (1 << 24) - 1;
/// The counter a new key starts with, so that it isn't evicted before it had a chance.
const LFU_INIT: u32 = 5;

/// How accesses are recorded now.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Unix seconds, 24 bits.
    pub lru_clock: u32,
    /// Set under an LFU policy.
    pub lfu: Option<Lfu>,
}

/// `lfu-log-factor` and `lfu-decay-time`, with the time.
#[derive(Clone, Copy, Debug)]
pub struct Lfu {
    pub log_factor: u32,
    pub decay_time_minutes: u32,
    /// Unix minutes, 16 bits.
    pub minutes: u32,
}

impl Access {
    /// The record that is kept at a time.
    pub fn new(now_ms: i64, lfu: Option<(u32, u32)>) -> Self {
        Access {
            lru_clock: ((now_ms / 1000) as u32) & LRU_MASK,
            lfu: lfu.map(|(log_factor, decay_time_minutes)| Lfu {
                log_factor,
                decay_time_minutes,
                minutes: ((now_ms / 60_000) as u32) & 0xffff,
            }),
        }
    }

    /// The record of a key that is created now.
    pub fn initial(&self) -> u32 {
        match self.lfu {
            None => self.lru_clock,
            Some(lfu) => (lfu.minutes << 8) | LFU_INIT,
        }
    }

    /// The record after one more access.
    #[inline]
    pub fn touched(&self, record: u32, rng: &mut Rng) -> u32 {
        let Some(lfu) = self.lfu else { return self.lru_clock };
        let counter = lfu.decayed(record);
        let grown = if counter == 255 {
            255
        } else {
            let base = f64::from(counter.saturating_sub(LFU_INIT));
            let chance = 1.0 / (base * f64::from(lfu.log_factor) + 1.0);
            counter + u32::from(rng.unit_f64() < chance)
        };
        (lfu.minutes << 8) | grown
    }

    /// Seconds since the last access.
    pub fn idle_s(&self, record: u32) -> u64 {
        u64::from(self.lru_clock.wrapping_sub(record) & LRU_MASK)
    }

    /// The record of a key that was last used `idle_s` seconds ago.
    pub fn record_for_idle(&self, idle_s: u64) -> u32 {
        self.lru_clock.wrapping_sub((idle_s & u64::from(LRU_MASK)) as u32) & LRU_MASK
    }

    /// The record of a key with the given frequency counter.
    pub fn record_for_frequency(&self, frequency: u8) -> u32 {
        (self.lfu.map_or(0, |lfu| lfu.minutes) << 8) | u32::from(frequency)
    }

    /// The decayed frequency counter (0..=255).
    pub fn frequency(&self, record: u32) -> u8 {
        self.lfu.map_or((record & 255) as u8, |lfu| lfu.decayed(record) as u8)
    }
}

impl Lfu {
    fn decayed(&self, record: u32) -> u32 {
        let elapsed = self.minutes.wrapping_sub(record >> 8) & 0xffff;
        let periods = elapsed.checked_div(self.decay_time_minutes).unwrap_or(0);
        (record & 255).saturating_sub(periods)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_wraps_with_the_clock() {
        let access = Access { lru_clock: 2, lfu: None };
        assert_eq!(access.idle_s(LRU_MASK), 3);
        assert_eq!(access.idle_s(access.record_for_idle(77)), 77);
    }

    #[test]
    fn frequency_grows_slowly_and_decays_by_minutes() {
        let mut rng = Rng::new(1);
        let mut access = Access::new(60_000 * 100, Some((10, 1)));
        let mut record = access.initial();
        (0..1000).for_each(|_| record = access.touched(record, &mut rng));
        let hot = access.frequency(record);
        assert!((8..60).contains(&hot), "{hot}");
        access.lfu.as_mut().expect("set above").minutes += 5;
        assert_eq!(access.frequency(record), hot - 5);
    }
}
