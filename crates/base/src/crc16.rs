//! CRC-16/XMODEM and the cluster's hash slot of a key.

use crate::ids::Slot;

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// CRC-16 with polynomial 0x1021, initial value 0, nothing reflected.
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| crc << 8 ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

/// The part of a key that decides its slot: what stands between the first `{` and the next `}`, or the whole key
/// if there is no such pair or nothing in it.
#[inline]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let rest = &key[open + 1..];
    match memchr::memchr(b'}', rest) {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

/// The hash slot of a key.
#[inline]
pub fn key_slot(key: &[u8]) -> Slot {
    Slot::from_crc(crc16(hash_tag(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b""), 0);
        // CLUSTER KEYSLOT on the reference.
        for (key, slot) in SLOTS {
            assert_eq!(key_slot(key.as_bytes()).get(), *slot, "{key}");
        }
    }

    const SLOTS: &[(&str, u16)] = &[
        ("", 0),
        ("foo", 12182),
        ("bar", 5061),
        ("{user1000}.following", 3443),
        ("{user1000}.followers", 3443),
        ("user1000", 3443),
        ("foo{}{bar}", 8363),
        ("foo{{bar}}zap", 4015),
        ("foo{bar}{zap}", 5061),
        ("foo{", 7673),
        ("foo}", 15679),
        ("}foo{bar}", 5061),
        ("{", 4092),
        ("{}", 15257),
        ("{}x", 10595),
        ("{a", 10276),
        ("a}", 5921),
        ("somekey", 11058),
        ("123456789", 12739),
        ("{é}x", 10180),
    ];
}
