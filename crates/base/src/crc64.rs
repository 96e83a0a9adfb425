//! CRC-64 with the Jones polynomial, as RDB files, DUMP payloads and DEBUG digests of them use it.

/// Jones' polynomial, bits reversed.
const POLYNOMIAL: u64 = 0xad93_d235_94c9_35a9u64.reverse_bits();

/// `TABLES[n][b]`: the remainder of byte `b` followed by `n` zero bytes. Eight tables, so that eight bytes take
/// eight independent look-ups instead of a chain of eight.
static TABLES: [[u64; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut n = 1;
    while n < 8 {
        let mut byte = 0;
        while byte < 256 {
            let shorter = tables[n - 1][byte];
            tables[n][byte] = tables[0][(shorter & 0xff) as usize] ^ shorter >> 8;
            byte += 1;
        }
        n += 1;
    }
    tables
};

/// The checksum of what `crc` is the checksum of, followed by `bytes`. Start with 0.
pub fn crc64(crc: u64, bytes: &[u8]) -> u64 {
    let mut crc = crc;
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let mixed = (crc ^ u64::from_le_bytes(*word)).to_le_bytes();
        crc = TABLES[7][usize::from(mixed[0])]
            ^ TABLES[6][usize::from(mixed[1])]
            ^ TABLES[5][usize::from(mixed[2])]
            ^ TABLES[4][usize::from(mixed[3])]
            ^ TABLES[3][usize::from(mixed[4])]
            ^ TABLES[2][usize::from(mixed[5])]
            ^ TABLES[1][usize::from(mixed[6])]
            ^ TABLES[0][usize::from(mixed[7])];
    }
    for &byte in tail {
        crc = TABLES[0][usize::from(crc as u8 ^ byte)] ^ crc >> 8;
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        assert_eq!(crc64(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(crc64(0, b""), 0);
    }

    /// DUMP of the string `value` on the reference: its last eight bytes are the checksum of all before.
    #[test]
    fn checksum_of_a_dump() {
        let dump: &[u8] = &[
            0x00, 0x05, 0x76, 0x61, 0x6c, 0x75, 0x65, 0x50, 0x00, 0x4e, 0xdc, 0x08, 0xa9, 0x5f, 0xf8, 0xfc,
            0x9a,
        ];
        let (payload, sum) = dump.split_at(dump.len() - 8);
        assert_eq!(crc64(0, payload).to_le_bytes(), sum);
    }

    proptest! {
        #[test]
        fn pieces_and_single_bytes_give_the_same(bytes in prop::collection::vec(any::<u8>(), 0..100), cut in 0usize..100) {
            let cut = cut.min(bytes.len());
            let whole = crc64(0, &bytes);
            prop_assert_eq!(crc64(crc64(0, &bytes[..cut]), &bytes[cut..]), whole);
            prop_assert_eq!(bytes.chunks(1).fold(0, crc64), whole);
        }
    }
}
